package cdc_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// BenchmarkSnapshot reads a table as events, beside COPY of the same rows.
func BenchmarkSnapshot(b *testing.B) {
	const rows = 200_000
	url := pgtest.Database(b)
	conn := pgtest.Connect(b, url)
	exec(b, conn, `CREATE TABLE items (id bigint PRIMARY KEY, note text, price numeric, n int, sold bool, doc jsonb, at timestamptz)`,
		fmt.Sprintf(`INSERT INTO items SELECT i, md5(i::text), i / 100.0, i %% 1000, i %% 2 = 0,
			jsonb_build_object('seat', i, 'class', 'second'), now() FROM generate_series(1, %d) i`, rows),
		"VACUUM ANALYZE items")
	rate := func(b *testing.B) { b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s") }
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			if _, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY (SELECT * FROM items) TO STDOUT"); err != nil {
				b.Fatal(err)
			}
		}
		rate(b)
	})
	for _, workers := range []int{1, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				src, err := cdc.New(url, &cdc.Options{Snapshot: cdc.SnapshotOnly, SnapshotWorkers: workers})
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				_, err = src.Subscribe("count", listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
					n += len(batch.Events)
					return nil
				}), nil)
				if err != nil {
					b.Fatal(err)
				}
				if err := src.Run(b.Context()); err != nil || n != rows {
					b.Fatalf("Run = %v after %d rows, want %d", err, n, rows)
				}
			}
			rate(b)
		})
	}
}
