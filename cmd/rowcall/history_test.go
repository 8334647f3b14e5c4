package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// historyTables are published; ledger is not. A trigger appends every change
// of a row to the ledger, in the transaction that makes it. Changes of one key
// are in the ledger in commit order, since row locks make them wait for each
// other.
const historyTables = `
CREATE TABLE ledger (
    seq bigserial PRIMARY KEY, lsn pg_lsn NOT NULL DEFAULT pg_current_wal_insert_lsn(), xid bigint NOT NULL, tbl text NOT NULL, op text NOT NULL,
    old_key jsonb, new_key jsonb, old_row jsonb, new_row jsonb
);

CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    o jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    n jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
BEGIN
    INSERT INTO ledger (xid, tbl, op, old_key, new_key, old_row, new_row) VALUES (
        pg_current_xact_id()::text::bigint, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME,
        CASE TG_OP WHEN 'INSERT' THEN 'create' WHEN 'UPDATE' THEN 'update' ELSE 'delete' END,
        (SELECT jsonb_object_agg(k, o -> k) FROM unnest(TG_ARGV) k WHERE o IS NOT NULL),
        (SELECT jsonb_object_agg(k, n -> k) FROM unnest(TG_ARGV) k WHERE n IS NOT NULL), o, n);
    RETURN NULL;
END $$;

CREATE TABLE plain (id int PRIMARY KEY, n numeric(12,3), note text, large text);
ALTER TABLE plain ALTER large SET STORAGE EXTERNAL;
CREATE TABLE paired (a int, b text, at timestamptz, PRIMARY KEY (a, b));
CREATE TABLE whole (id int PRIMARY KEY, tags text[], flag boolean);
ALTER TABLE whole REPLICA IDENTITY FULL;

CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note('id');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON paired FOR EACH ROW EXECUTE FUNCTION note('a', 'b');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON whole FOR EACH ROW EXECUTE FUNCTION note('id');
`

// publishedTables is for --tables.
const publishedTables = "public.plain,public.paired,public.whole"

// seedRows makes the snapshot take long enough to be hit.
const seedRows = 6_000

// A history is a database in which writers keep changing rows.
type history struct {
	url  string
	seed uint64
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// startHistory creates the tables, fills them, and starts three writers. They
// survive a restart of the server. The test's end stops them.
func startHistory(t *testing.T, databaseURL string) *history {
	t.Helper()
	pgtest.Exec(t, databaseURL, historyTables, fmt.Sprintf(`
		INSERT INTO plain SELECT i, i / 7.0, 'seed', repeat('x', 10) FROM generate_series(1000, %d) i;
		INSERT INTO paired SELECT i, 'seed', now() FROM generate_series(1000, 1100) i;
		INSERT INTO whole SELECT i, '{a,b}', true FROM generate_series(1000, 1100) i`, 1000+seedRows))
	h := &history{url: databaseURL, seed: rand.Uint64()}
	t.Logf("seed %d", h.seed)
	ctx, stop := context.WithCancel(t.Context())
	h.stop = stop
	for writer := range uint64(3) {
		h.wg.Go(func() { h.write(ctx, rand.New(rand.NewPCG(h.seed, writer))) })
	}
	t.Cleanup(h.end)
	return h
}

// end stops the writers and waits for them.
func (h *history) end() {
	h.stop()
	h.wg.Wait()
}

// write commits transactions until ctx ends. An error (a deadlock, a server
// that is down) costs one transaction.
func (h *history) write(ctx context.Context, r *rand.Rand) {
	var conn *pgx.Conn
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, h.url); err == nil {
				_, err = conn.Exec(ctx, "SET deadlock_timeout = '20ms'; SET statement_timeout = '5s'")
			}
			if err != nil {
				conn = nil
			}
		}
		if conn != nil {
			_ = transaction(ctx, conn, r) // rolled back: then the ledger has nothing of it either
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if conn != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
	}
}

func transaction(ctx context.Context, conn *pgx.Conn, r *rand.Rand) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for range 1 + r.IntN(5) {
		if r.IntN(8) > 0 {
			if _, err := tx.Exec(ctx, statement(r)); err != nil {
				return err
			}
			continue
		}
		// A savepoint, rolled back half of the time.
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := inner.Exec(ctx, statement(r)); err != nil {
			return err
		}
		end := inner.Commit
		if r.IntN(2) == 0 {
			end = inner.Rollback
		}
		if err := end(ctx); err != nil {
			return err
		}
	}
	if r.IntN(20) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// statement returns a change of a few keys, so that keys come back often.
func statement(r *rand.Rand) string {
	k, other, n := r.IntN(30), r.IntN(30), r.IntN(1_000_000)
	switch r.IntN(10) {
	case 0:
		return fmt.Sprintf(`INSERT INTO plain VALUES (%d, %d / 1000.0, 'ä %d', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i))
			ON CONFLICT (id) DO UPDATE SET n = plain.n + 1`, k, n, n)
	case 1:
		return fmt.Sprintf(`UPDATE plain SET n = %d, note = NULLIF('%d', '7') WHERE id = %d`, n, n%10, k)
	case 2:
		return fmt.Sprintf(`UPDATE plain SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM plain WHERE id = %[1]d)`, other, k)
	case 3:
		return fmt.Sprintf(`DELETE FROM plain WHERE id = %d`, k)
	case 4:
		return fmt.Sprintf(`INSERT INTO paired VALUES (%d, 'b/%d', clock_timestamp()) ON CONFLICT DO NOTHING`, k, other%3)
	case 5:
		return fmt.Sprintf(`UPDATE paired SET b = 'b %% "%d"' WHERE a = %d AND NOT EXISTS (SELECT FROM paired WHERE a = %[2]d AND b LIKE 'b %%')`, other%3, k)
	case 6:
		return fmt.Sprintf(`DELETE FROM paired WHERE a = %d`, k)
	case 7:
		return fmt.Sprintf(`INSERT INTO whole VALUES (%d, ARRAY['%d', NULL, 'a "quote"'], %d %% 2 = 0)
			ON CONFLICT (id) DO UPDATE SET tags = whole.tags[1:2] || EXCLUDED.tags[1:1]`, k, n, n)
	case 8:
		return fmt.Sprintf(`UPDATE whole SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM whole WHERE id = %[1]d)`, other, k)
	default:
		return fmt.Sprintf(`DELETE FROM whole WHERE id = %d`, k)
	}
}

// ledger returns all entries, in order.
func (h *history) ledger(t *testing.T) []entry {
	t.Helper()
	conn := pgtest.Connect(t, h.url)
	if _, err := conn.Exec(t.Context(), "SET timezone = 'UTC'"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `SELECT seq, (lsn - '0/0')::bigint, xid, tbl, op, old_key::text, new_key::text, old_row::text, new_row::text FROM ledger ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	var entries []entry
	var e entry
	var texts [4]*string
	_, err = pgx.ForEachRow(rows, []any{&e.seq, &e.lsn, &e.xid, &e.table, &e.op, &texts[0], &texts[1], &texts[2], &texts[3]}, func() error {
		for i, to := range []*any{&e.oldKey, &e.newKey, &e.oldRow, &e.newRow} {
			*to = nil
			if texts[i] != nil {
				*to = exact([]byte(*texts[i]))
			}
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
