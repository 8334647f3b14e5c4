package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// A wire is a connection in replication mode, below the driver: one goroutine
// reads messages, another one writes status updates, and neither waits for the
// other.
type wire struct {
	conn net.Conn

	// Of the reading goroutine. Messages are slices of blocks that are never
	// written again, so that rows need not be copied.
	block    []byte
	from, to int // of what was read and not taken yet
	window   time.Time
	messages int // taken since window

	reading atomic.Int64 // since when, in Unix nanoseconds; 0 outside of Read

	out [1 + 4 + 1 + 8*4 + 1]byte // of the writing goroutine
}

const (
	blockSize = 256 << 10

	// While more than burst messages come within a burstWindow, reads wait for
	// a pause so that one system call brings many of them: the server sends
	// each row on its own. Slower traffic is read at once.
	burst       = 64
	burstWindow = 2 * time.Millisecond
	pause       = time.Millisecond
)

// hijack takes an idle connection over from the driver, and closes it after an
// error.
//
// When one of the driver's writes takes longer than 15 ms, as on a busy machine,
// the driver reads in the background, until something comes: it would take the
// first bytes of what is read here.
func hijack(ctx context.Context, conn *pgconn.PgConn) (*wire, error) {
	if err := conn.SyncConn(ctx); err != nil {
		hangUp(ctx, conn)
		return nil, fmt.Errorf("take the connection over: %v", err) //nolint:errorlint // to be tried again
	}
	h, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	return &wire{conn: h.Conn, block: make([]byte, blockSize)}, nil
}

// next returns the type and the body of the next message. The body stays
// valid.
func (w *wire) next() (byte, []byte, error) {
	if err := w.need(5); err != nil {
		return 0, nil, err
	}
	kind := w.block[w.from]
	size := int(binary.BigEndian.Uint32(w.block[w.from+1:]))
	if size < 4 || size > 1<<30+1<<20 {
		return 0, nil, fmt.Errorf("message %q of %d bytes: not the Postgres protocol", kind, size)
	}
	if err := w.need(1 + size); err != nil {
		return 0, nil, err
	}
	body := w.block[w.from+5 : w.from+1+size : w.from+1+size]
	w.from += 1 + size
	w.messages++
	return kind, body, nil
}

// need reads until n bytes are there.
func (w *wire) need(n int) error {
	for w.to-w.from < n {
		if w.from+n > len(w.block) || w.to == len(w.block) {
			block := make([]byte, max(blockSize, n))
			w.to = copy(block, w.block[w.from:w.to])
			w.block, w.from = block, 0
		}
		w.coalesce()
		w.reading.Store(time.Now().UnixNano())
		got, err := w.conn.Read(w.block[w.to:])
		w.reading.Store(0)
		w.to += got
		if err != nil && w.to-w.from < n {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// coalesce pauses in a burst.
func (w *wire) coalesce() {
	if w.messages < burst {
		if w.messages == 0 {
			return
		}
		now := time.Now()
		if now.Sub(w.window) > burstWindow {
			w.window, w.messages = now, 0
		}
		return
	}
	if time.Since(w.window) < burstWindow {
		timer := time.NewTimer(pause)
		<-timer.C
	}
	w.window, w.messages = time.Now(), 0
}

// interrupt makes the reading goroutine return with an error.
func (w *wire) interrupt() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) }

// query sends a simple query; the answer is for next.
func (w *wire) query(sql string) error {
	msg, err := (&pgproto3.Query{String: sql}).Encode(nil)
	if err != nil {
		return err
	}
	_, err = w.conn.Write(msg)
	return err
}

// startReplication starts streaming and returns once the server agreed.
func (w *wire) startReplication(ctx context.Context, slot, options string) error {
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()
	err := w.query(fmt.Sprintf(`START_REPLICATION SLOT "%s" LOGICAL 0/0 (%s)`, slot, options))
	for err == nil {
		var kind byte
		var body []byte
		if kind, body, err = w.next(); err != nil {
			break
		}
		switch kind {
		case 'W':
			return nil
		case 'E':
			err = serverError(body)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// status tells the server what was received and what it may forget, and asks
// for an answer, so that a dead connection is noticed and an idle one learns
// of progress elsewhere (Postgres manual, "Standby status update").
func (w *wire) status(received, confirmed LSN) error {
	b := append(w.out[:0], 'd', 0, 0, 0, 0, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(received))
	b = binary.BigEndian.AppendUint64(b, uint64(confirmed))
	b = binary.BigEndian.AppendUint64(b, uint64(confirmed))
	b = binary.BigEndian.AppendUint64(b, uint64(pgoutput.Micros(time.Now())))
	b = append(b, 1)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return w.write(b)
}

// silent reports whether somebody has listened for d and the server has said
// nothing. Time that the reader spends elsewhere does not count.
func (w *wire) silent(d time.Duration) bool {
	since := w.reading.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > d
}

// finish ends streaming politely: the server has then taken the last status.
func (w *wire) finish(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	if err := w.write([]byte{'c', 0, 0, 0, 4}); err != nil {
		return err
	}
	if err := w.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	for {
		kind, _, err := w.next()
		if err != nil || kind == 'Z' {
			return err
		}
		w.messages = 0 // no pauses any more
	}
}

func (w *wire) write(b []byte) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}

func (w *wire) close() { _ = w.conn.Close() }

// serverError reads an ErrorResponse.
func serverError(body []byte) error {
	var e pgproto3.ErrorResponse
	if err := e.Decode(body); err != nil {
		return err
	}
	return pgconn.ErrorResponseToPgError(&e)
}
