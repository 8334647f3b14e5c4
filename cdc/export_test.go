package cdc

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Hurry makes a source look at its slot this often, and wait this long before it
// begins a snapshot again.
func (s *Source) Hurry(d time.Duration) { s.c.watchInterval, s.c.snapshotPause = d, d }

// SetChunkPages makes a snapshot's queries smaller than tables of a test.
func (s *Source) SetChunkPages(pages int64) { s.c.chunkPages = pages }

// SearchFirst has a source's connections look into a schema before pg_catalog,
// where a test puts functions that fail.
func (s *Source) SearchFirst(schema string) {
	s.c.conn.RuntimeParams["search_path"] = schema + ", pg_catalog"
}

// OnConnect calls f with each connection that a source opens.
func (s *Source) OnConnect(f func(context.Context) error) {
	s.c.conn.AfterConnect = func(ctx context.Context, _ *pgconn.PgConn) error { return f(ctx) }
}
