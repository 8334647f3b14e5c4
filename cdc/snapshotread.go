package cdc

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/listeners"
)

// A tableReader turns tables into events, one table after the other, the
// chunks of one by several workers. It belongs to the goroutine of its batcher.
type tableReader struct {
	b        *batcher
	tables   []snapshotTable
	progress *progress
	index    uint32
	ended    []func() // for tables that are read and not handed over
	chunks   chan *chunk
	slabs    chan *slab
}

// readTables emits the rows of tables as the batches of one snapshot that b has
// begun, and calls finished for each table when all of it is emitted.
// Their last batch is emitted even if there are no rows. It takes conn over,
// and opens others.
func (s *Source) readTables(
	ctx context.Context, e *exported, conn *pgx.Conn, tables []snapshotTable, b *batcher,
	finished func(*snapshotTable, listeners.Position),
) error {
	if err := measure(ctx, conn, tables); err != nil {
		return err
	}
	parts := make([][]chunk, len(tables))
	workers := 1
	for i := range tables {
		parts[i] = tables[i].chunks(s.c.chunkPages)
		workers = max(workers, min(s.c.SnapshotWorkers, len(parts[i])))
	}
	first, err := newSnapshotWorker(ctx, conn.PgConn())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &tableReader{
		b: b, tables: tables, progress: newProgress(s.c, tables),
		chunks: make(chan *chunk), slabs: make(chan *slab, 2*workers),
	}
	var wg sync.WaitGroup
	defer func() {
		cancel(nil)
		wg.Wait()
	}()
	var joined sync.WaitGroup
	joined.Add(workers)
	for i := range workers {
		wg.Go(func() {
			if err := s.snapshotWorker(ctx, e, i, first, r, joined.Done); err != nil {
				cancel(err)
			}
		})
	}
	if e.brief {
		wg.Go(func() {
			joined.Wait()
			e.close(ctx) // somebody may wait for its slot
		})
	}
	for i := range tables {
		if err := r.read(ctx, parts[i]); err != nil {
			return err
		}
		if finished != nil {
			r.ended = append(r.ended, func() {
				finished(&tables[i], listeners.Position{Epoch: b.epoch, Commit: b.commit, Index: r.index})
			})
		}
	}
	if err := r.flush(ctx, true); err != nil {
		return err
	}
	r.progress.done()
	return nil
}

// flush hands over what was read, and says that of the tables that are read. It
// is called when there is more, or at the end, so that the last batch has rows
// if there are any.
func (r *tableReader) flush(ctx context.Context, last bool) error {
	if last || r.b.pending() {
		if err := r.b.flush(ctx, last); err != nil {
			return err
		}
	}
	for _, end := range r.ended {
		end()
	}
	r.ended = nil
	return nil
}

// snapshotWorker is worker i of a snapshot; the first one has a connection. It
// calls joined when it has the snapshot, or goes without.
func (s *Source) snapshotWorker(ctx context.Context, e *exported, i int, first *snapshotWorker, r *tableReader, joined func()) error {
	worker := first
	joined = sync.OnceFunc(joined)
	defer joined()
	if i > 0 {
		conn, _, err := e.join(ctx, s.c)
		if sqlState(err) == "53300" {
			s.c.Logger.WarnContext(ctx, "no connection left for another snapshot worker; the others go on", "error", err)
			return nil
		}
		if err != nil {
			return err
		}
		// Behind somebody who waits to alter a table, and so for the first
		// worker's lock, this one would wait for ever.
		if _, err := conn.Exec(ctx, lockTables(r.tables)+" NOWAIT"); err != nil {
			hangUp(ctx, conn.PgConn())
			if sqlState(err) == "55P03" {
				s.c.Logger.InfoContext(ctx, "somebody waits to alter a table; a snapshot worker less", "error", err)
				return nil
			}
			return err
		}
		if worker, err = newSnapshotWorker(ctx, conn.PgConn()); err != nil {
			return err
		}
	}
	joined()
	defer worker.close()
	return worker.run(ctx, r.chunks, r.slabs)
}

// read emits the rows of one table.
func (r *tableReader) read(ctx context.Context, parts []chunk) error {
	for next, done := 0, 0; done < len(parts); {
		chunks, c := r.chunks, (*chunk)(nil)
		if next < len(parts) {
			c = &parts[next]
		} else {
			chunks = nil
		}
		select {
		case chunks <- c:
			next++
		case s := <-r.slabs:
			if err := r.emit(ctx, s); err != nil {
				return err
			}
			if s.last {
				r.progress.chunkDone(s.chunk)
				done++
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.progress.tableDone()
	return nil
}

// emit makes the rows of a slab events.
func (r *tableReader) emit(ctx context.Context, s *slab) error {
	rel := s.chunk.table.relation
	if len(s.rows) > 0 && len(r.ended) > 0 {
		if err := r.flush(ctx, false); err != nil {
			return err
		}
	}
	for i := range s.rows {
		r.index++
		e, err := r.b.add(ctx, r.index, len(s.rows[i].data))
		if err != nil {
			return fmt.Errorf("read table %s: %w", rel.schema.Collection(), err)
		}
		e.Op, e.Schema = listeners.Read, rel.schema
		if rel.outbox != nil {
			s.rows[i] = rel.outbox.message(e, s.rows[i])
		}
		e.After = listeners.NewRecord(&s.rows[i])
	}
	r.progress.rows(s.chunk.table, len(s.rows))
	return nil
}
