package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/listeners"
)

// connect opens an ordinary connection with the pinned session settings.
func (c *config) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, c.conn.Copy())
	if err != nil {
		return nil, fmt.Errorf("connect to database %q: %w", c.database, err)
	}
	return conn, nil
}

// connectReplication opens a connection in replication mode and returns the
// cluster's system identifier.
func (c *config) connectReplication(ctx context.Context) (*pgconn.PgConn, uint64, error) {
	conn, id, err := c.connectIdentified(ctx)
	return conn, id.system, err
}

// transient reports whether it is worth to connect again: what the server
// refuses for a reason that somebody has to remove is not. Errors without a
// SQLSTATE come from the network.
func transient(err error) bool {
	var (
		slot   *SlotError
		setup  *SetupError
		decode *DecodeError
		failed *listeners.ListenerError
		spool  *spoolError
	)
	if errors.As(err, &slot) || errors.As(err, &setup) || errors.As(err, &decode) || errors.As(err, &failed) ||
		errors.As(err, &spool) ||
		errors.Is(err, errTooManyEvents) || errors.Is(err, listeners.ErrClosed) {
		return false
	}
	state := sqlState(err)
	switch state {
	case "", "55006", "53300": // network; object in use; too many connections
		return true
	}
	switch state[:2] {
	case "57", "08", "53", "40", "58": // shutdown and start-up, connection, resources, rollback, system
		return true
	}
	return false
}

// raced reports whether a table was dropped while the server listed the
// tables: pg_publication_tables opens each of them. The text of the error depends
// on lc_messages.
func raced(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "XX000" && pg.Routine == "relation_open"
}

// unlessRaced calls list again when a table was dropped meanwhile, a few times.
func unlessRaced(list func() error) error {
	err := list()
	for range 9 {
		if !raced(err) {
			break
		}
		err = list()
	}
	return err
}

// literal writes a string for SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
