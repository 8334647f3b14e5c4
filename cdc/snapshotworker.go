package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// A slab is some rows of a chunk, in the memory that they were received into.
type slab struct {
	chunk *chunk
	rows  []row
	bytes int
	last  bool // of its chunk
}

const (
	slabRows  = 512
	slabBytes = 128 << 10
)

// A snapshotWorker reads chunks over a connection in the snapshot's
// transaction. It belongs to one goroutine.
type snapshotWorker struct {
	w    *wire
	cols []uint32 // a block; what is full belongs to its rows
}

// newSnapshotWorker takes the connection over from the driver.
func newSnapshotWorker(ctx context.Context, conn *pgconn.PgConn) (*snapshotWorker, error) {
	w, err := hijack(ctx, conn)
	if err != nil {
		return nil, err
	}
	return &snapshotWorker{w: w}, nil
}

func (k *snapshotWorker) close() {
	_ = k.w.write([]byte{'X', 0, 0, 0, 4}) // Terminate
	k.w.close()
}

// run reads chunks until there are no more or ctx ends.
func (k *snapshotWorker) run(ctx context.Context, chunks <-chan *chunk, slabs chan<- *slab) error {
	stop := context.AfterFunc(ctx, k.w.interrupt)
	defer stop()
	for {
		select {
		case c, ok := <-chunks:
			if !ok {
				return nil
			}
			if err := k.read(ctx, c, slabs); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return fmt.Errorf("read table %s.%s: %w", c.table.schema, c.table.name, err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// read hands over one chunk's rows; the last slab may be empty.
func (k *snapshotWorker) read(ctx context.Context, c *chunk, slabs chan<- *slab) error {
	if err := k.w.query(c.sql()); err != nil {
		return err
	}
	send := func(s *slab) error {
		select {
		case slabs <- s:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var failed error
	s := &slab{chunk: c}
	for {
		kind, body, err := k.w.next()
		if err != nil {
			return err
		}
		k.w.messages = 0 // a pause would only be one: the server sends rows in large pieces
		switch kind {
		case 'D':
			if failed != nil {
				continue
			}
			if len(s.rows) == slabRows || s.bytes >= slabBytes {
				if err := send(s); err != nil {
					return err
				}
				s = &slab{chunk: c}
			}
			failed = k.row(s, body)
		case 'E':
			failed = errors.Join(failed, serverError(body))
		case 'Z':
			if failed != nil {
				return failed
			}
			s.last = true
			return send(s)
		default: // descriptions, notices and parameter changes
		}
	}
}

// row adds a DataRow, whose values lie there as a row needs them (Postgres
// manual, "Message Formats").
func (k *snapshotWorker) row(s *slab, body []byte) error {
	rel := s.chunk.table.relation
	if len(body) < 2 || int(binary.BigEndian.Uint16(body)) != len(rel.types) {
		return fmt.Errorf("a row of %d bytes that has not the %d columns asked for", len(body), len(rel.types))
	}
	n := len(rel.types)
	if cap(k.cols)-len(k.cols) < n {
		k.cols = make([]uint32, 0, max(colBlock, n))
	}
	from := len(k.cols)
	at := 2
	for range n {
		if len(body)-at < 4 {
			return pgoutput.ErrTruncated
		}
		size := int32(binary.BigEndian.Uint32(body[at:]))
		if size < 0 {
			k.cols = append(k.cols, pgoutput.Null)
			at += 4
			continue
		}
		if len(body)-at-4 < int(size) {
			return pgoutput.ErrTruncated
		}
		k.cols = append(k.cols, uint32(at))
		at += 4 + int(size)
	}
	if s.rows == nil {
		s.rows = make([]row, 0, slabRows)
	}
	s.rows = append(s.rows, row{rel: rel, data: body, cols: k.cols[from:len(k.cols):len(k.cols)]})
	s.bytes += len(body)
	return nil
}
