package pgtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database creates an empty database for this test and returns its URL. The user
// is a superuser.
//
// When the test ends, the database is dropped, with its replication slots and
// prepared transactions, and whoever is still connected is thrown out. A
// replication slot that stays in use all the same fails the test.
func Database(t testing.TB) string {
	t.Helper()
	u := sharedURL(t)
	maintenance := u.String()
	name := databaseName(t.Name())
	// template1 cannot be copied while anyone is connected to it; template0 can.
	Exec(t, maintenance, "CREATE DATABASE "+name+" TEMPLATE template0")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := drop(ctx, u, name); err != nil {
			t.Errorf("drop the test's database %s: %v", name, err)
		}
	})
	return withDatabase(u, name)
}

func withDatabase(u *url.URL, name string) string {
	other := *u
	other.Path = "/" + name
	return other.String()
}

// databaseName makes an identifier that needs no quotes, tells a reader of the
// server's log which test it belongs to, and is unique on a server that several
// test binaries share. An identifier has at most 63 bytes.
func databaseName(test string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, strings.TrimPrefix(test, "Test"))
	return fmt.Sprintf("t_%s_%08x", name[:min(len(name), 40)], rand.Uint32())
}

// drop removes what would make DROP DATABASE fail, and then the database.
func drop(ctx context.Context, maintenance *url.URL, name string) error {
	conn, err := pgx.Connect(ctx, maintenance.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := rollbackPrepared(ctx, conn, withDatabase(maintenance, name), name); err != nil {
		return err
	}
	// From here on, no client comes back to create a slot anew.
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	if err := dropSlots(ctx, conn, name); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
	return err
}

// dropSlots retries, since a slot stays active for a moment after its walsender
// has been told to go.
func dropSlots(ctx context.Context, conn *pgx.Conn, database string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		const terminate = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = $1 AND active"
		if _, err := conn.Exec(ctx, terminate, database); err != nil {
			return err
		}
		const dropIdle = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active"
		_, dropErr := conn.Exec(ctx, dropIdle, database)

		var left int
		const count = "SELECT count(*) FROM pg_replication_slots WHERE database = $1"
		if err := conn.QueryRow(ctx, count, database).Scan(&left); err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d replication slots remain (last error: %w): %w", left, dropErr, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// rollbackPrepared has to connect to the database: a prepared transaction can be
// finished only from there.
func rollbackPrepared(ctx context.Context, conn *pgx.Conn, databaseURL, database string) error {
	rows, err := conn.Query(ctx, "SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = $1", database)
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(gids) == 0 {
		return err
	}
	inside, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer inside.Close(ctx)
	for _, gid := range gids {
		if _, err := inside.Exec(ctx, "ROLLBACK PREPARED "+gid); err != nil {
			return err
		}
	}
	return nil
}
