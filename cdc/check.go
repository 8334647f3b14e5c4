package cdc

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Level is how much a [Finding] matters.
type Level int

// The levels, mildest first.
const (
	// OK: as it should be.
	OK Level = iota
	// Info: it works, and there is something to know.
	Info
	// Warning: it works, but something is lost or fails elsewhere.
	Warning
	// Fatal: a source refuses to run.
	Fatal
)

// String returns "ok", "info", "warning" or "fatal".
func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Fatal:
		return "fatal"
	}
	return "level " + strconv.Itoa(int(l))
}

// MarshalText implements [encoding.TextMarshaler] with the words of String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// A Finding is one thing that [Check] looked at.
type Finding struct {
	// Check is a short name that does not change between versions, such as
	// "wal_level", "publication" or "slot".
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Object is the table, slot, publication, role or address that the finding
	// is about; "" for the server as a whole.
	Object string `json:"object,omitempty"`
	// Text is a sentence without a final period.
	Text string `json:"text"`
	// Remedy says what to do. Only a finding that is OK has none.
	Remedy string `json:"remedy,omitempty"`
}

// String returns one line: the level, the text and the remedy. The line is long
// where the remedy is a statement that names many tables.
func (f Finding) String() string {
	line := f.Level.String() + ": " + f.Text
	if f.Remedy != "" {
		line += "; " + f.Remedy
	}
	return line
}

// checkTimeout bounds each of Check's connection attempts where the URL has no
// connect_timeout.
const checkTimeout = 10 * time.Second

// Check looks at whether a source with these options can work: the connection,
// the server's settings, the role's privileges, the tables, the publication and
// the slot. It is what "rowcall doctor" prints. A source's Run applies the same
// rules and refuses where one is [Fatal].
//
// Check changes nothing in the database. It opens an ordinary and a replication
// connection and closes both. Several calls may run at the same time.
//
// A database that cannot be reached is a finding, not an error. An error means
// that there is no answer: the URL or the options are faulty, ctx ended, or a
// catalog could not be read. Neither ever holds the password.
func Check(ctx context.Context, databaseURL string, opts *Options) ([]Finding, error) {
	c, err := newConfig(databaseURL, opts)
	if err != nil {
		return nil, err
	}
	if c.conn.ConnectTimeout == 0 {
		c.conn.ConnectTimeout = checkTimeout
	}
	ordinary := c.conn.Copy()
	ordinary.RuntimeParams["default_transaction_read_only"] = "on"
	conn, err := pgx.ConnectConfig(ctx, ordinary)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("cdc: check: %w", context.Cause(ctx))
		}
		return []Finding{connectionFinding(err, c)}, nil
	}
	defer hangUp(ctx, conn.PgConn())
	inv, err := takeInventory(ctx, conn, c)
	if err != nil {
		return nil, err
	}
	out := []Finding{{Check: "connection", Object: address(c), Text: "connected as " + roleOf(inv, c)}}
	refused := inv.tryReplication(ctx, c)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("cdc: check: %w", context.Cause(ctx))
	}
	// A role without the privilege has been named already, with its remedy.
	if refused != nil && (inv.replication || inv.superuser) {
		out = append(out, *refused)
	}
	out = append(out, inv.findings(c)...)
	if f := inv.readByRowcall(c, slotInUse(inv, c)); f != nil {
		out = append(out, *f)
	}
	return out, nil
}

func roleOf(inv *inventory, c *config) string {
	return fmt.Sprintf("role %q to database %q at %s", inv.user, inv.database, address(c))
}

// tryReplication opens a replication connection, as pg_hba.conf, poolers and
// limits may refuse one where they let an ordinary connection through. It fills
// in what only such a connection can tell for sure.
func (inv *inventory) tryReplication(ctx context.Context, c *config) *Finding {
	if inv.version < minVersion {
		return nil
	}
	replication := c.conn.Config.Copy()
	replication.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, replication)
	if err != nil {
		f := connectionFinding(err, c)
		f.Text = "no replication connection: " + f.Text
		return &f
	}
	defer hangUp(ctx, conn)
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return &Finding{
			Check: "connection", Level: Fatal, Object: address(c),
			Text:   "the replication connection does not answer IDENTIFY_SYSTEM: " + err.Error(),
			Remedy: poolerRemedy,
		}
	}
	inv.replication = true
	if inv.systemID == 0 && len(results) > 0 && len(results[0].Rows) > 0 && len(results[0].Rows[0]) > 1 {
		// Not to be known is no finding: the row is for the source's own use.
		inv.systemID, _ = strconv.ParseUint(string(results[0].Rows[0][0]), 10, 64)
	}
	return nil
}

// hangUp says goodbye to the server, for a second at most, even if ctx has
// ended.
func hangUp(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing was written
}
