package cdc

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// A catalog answers, on a connection of its own, what the replication protocol
// does not carry. It belongs to one goroutine.
type catalog struct {
	c    *config
	conn *pgx.Conn
	lost map[uint32]bool // relations whose lost key was reported
}

// types looks up types, and those inside them.
func (q *catalog) types(ctx context.Context, oids []uint32) (types, error) {
	conn, err := q.connected(ctx)
	if err != nil {
		return nil, err
	}
	return describeTypes(ctx, conn, oids)
}

func (q *catalog) connected(ctx context.Context) (*pgx.Conn, error) {
	if q.conn != nil && !q.conn.IsClosed() {
		return q.conn, nil
	}
	conn, err := q.c.connect(ctx)
	q.conn = conn
	return conn, err
}

func (q *catalog) close(ctx context.Context) {
	if q.conn != nil {
		_ = q.conn.Close(context.WithoutCancel(ctx))
		q.conn = nil
	}
}

// primaryKey returns the names of a table's primary key columns, none if it
// has no primary key or is gone.
func (q *catalog) primaryKey(ctx context.Context, relation uint32) ([]string, error) {
	conn, err := q.connected(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `
		SELECT a.attname FROM pg_index i
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		WHERE i.indrelid = $1 AND i.indisprimary`, relation)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// endOfLog returns a position at or after the end of every transaction that
// has committed. It is the insert position as soon as that is flushed: with
// synchronous_commit off this takes up to three times wal_writer_delay. At
// the start of a page the insert position is past a header that nobody
// flushes, so after a while the flushed position counts.
func endOfLog(ctx context.Context, conn *pgx.Conn) (LSN, error) {
	if at, standby, err := replayed(ctx, conn); standby || err != nil {
		return at, err
	}
	var inserted LSN
	err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&inserted)
	deadline, woken := time.Now().Add(time.Second), false
	for err == nil {
		var flushed LSN
		err = conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&flushed)
		if err != nil || flushed >= inserted {
			return inserted, err
		}
		switch {
		case time.Now().After(deadline.Add(time.Second)):
			return flushed, nil
		case time.Now().After(deadline) && !woken:
			// What a vacuum or a reading query logs is flushed in whole pages, and
			// the rest of the last record perhaps only with the next commit. A
			// transaction that has a number and nothing else is one.
			_, _ = conn.Exec(ctx, "SELECT pg_current_xact_id()") // refused where the session may only read
			woken = true
		}
		err = sleep(ctx, 20*time.Millisecond)
	}
	return 0, err
}
