package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// copyWorkMem keeps smaller calls out of the server's temporary files: it
	// collects the result of a call before it sends the first row.
	copyWorkMem = "64MB"
	// cancelTimeout bounds the attempt to stop a query that nobody reads.
	cancelTimeout = 2 * time.Second
)

// A slotCopy is a temporary copy of the slot, with the session that owns it.
// Reading it consumes it, which loses nothing: the slot itself stays where it
// is, and a copy goes with its session. It belongs to one goroutine.
type slotCopy struct {
	w       *wire
	server  *pgconn.PgConn // hijacked, still able to cancel
	name    string
	options string // of the plugin, as SQL arguments
	busy    bool   // with a query whose answer has not ended

	at      LSN // everything that committed before was returned
	restart LSN // where the next call begins to read the log
	end     LSN // of the log, when it was looked at
}

// copySlot makes a copy at the slot's confirmed position. The session holds an
// advisory lock, since reading a copy does not make the slot active: without it
// two sources could catch up at once.
func (s *Source) copySlot(ctx context.Context) (*slotCopy, error) {
	conn, err := s.c.connect(ctx)
	if err != nil {
		return nil, err
	}
	suffix := "_catch" + strconv.FormatUint(uint64(conn.PgConn().PID()), 10)
	q := &slotCopy{server: conn.PgConn(), name: s.c.Slot[:min(len(s.c.Slot), 63-len(suffix))] + suffix}
	for _, option := range s.c.pluginOptions() {
		q.options += ", " + literal(option[0]) + ", " + literal(option[1])
	}
	var locked bool
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", "rowcall slot "+s.c.Slot).Scan(&locked)
	if err == nil && !locked {
		err = &pgconn.PgError{Severity: "ERROR", Code: "55006", Message: "another rowcall catches up from this slot"}
	}
	if err == nil {
		_, err = conn.Exec(ctx, "SET work_mem = '"+copyWorkMem+"'")
	}
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2, true)", s.c.Slot, q.name)
	}
	if err == nil {
		q.w, err = hijack(ctx, conn.PgConn())
	}
	if err != nil {
		hangUp(ctx, conn.PgConn())
		return nil, fmt.Errorf("copy slot %q: %w", s.c.Slot, err)
	}
	keepAlive(q.w.conn)
	if err := q.look(ctx); err != nil {
		q.close(ctx)
		return nil, err
	}
	return q, nil
}

// look finds out where the copy and the log are.
func (q *slotCopy) look(ctx context.Context) error {
	found := false
	err := q.query(ctx, `SELECT confirmed_flush_lsn, restart_lsn, pg_current_wal_flush_lsn()
		FROM pg_replication_slots WHERE slot_name = `+literal(q.name), func(row []byte) error {
		for _, to := range []*LSN{&q.at, &q.restart, &q.end} {
			value, rest, err := column(row)
			if err != nil || len(value) != 8 {
				return fmt.Errorf("a position of %d bytes: %w", len(value), err)
			}
			*to, row = LSN(binary.BigEndian.Uint64(value)), rest
		}
		found = true
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("the slot's copy %q is gone", q.name)
	}
	return err
}

// read consumes changes until n or more have come or the log was read up to
// limit, always to the end of a transaction, and hands each of them to message,
// which may keep its bytes. The server sends nothing before it has them all.
func (q *slotCopy) read(ctx context.Context, n int, limit LSN, message func(lsn LSN, msg []byte) error) error {
	sql := fmt.Sprintf("SELECT lsn, data FROM pg_logical_slot_get_binary_changes(%s, '%s', %d%s)",
		literal(q.name), limit, n, q.options)
	return q.query(ctx, sql, func(row []byte) error {
		lsn, row, err := column(row)
		if err != nil || len(lsn) != 8 {
			return fmt.Errorf("a position of %d bytes: %w", len(lsn), err)
		}
		msg, _, err := column(row)
		if err != nil {
			return err
		}
		return message(LSN(binary.BigEndian.Uint64(lsn)), msg)
	})
}

// query runs one statement of the extended protocol with results in binary
// form. Each row goes to fn without its number of columns. When ctx ends, or fn
// fails, the connection is of no more use.
func (q *slotCopy) query(ctx context.Context, sql string, fn func(row []byte) error) error {
	var msg []byte
	var err error
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.Parse{Query: sql}, &pgproto3.Bind{ResultFormatCodes: []int16{pgproto3.BinaryFormat}},
		&pgproto3.Execute{}, &pgproto3.Sync{},
	} {
		if msg, err = m.Encode(msg); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, q.w.interrupt)
	defer stop()
	q.busy = true
	if err = q.w.write(msg); err == nil {
		err = q.rows(fn)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (q *slotCopy) rows(fn func(row []byte) error) error {
	var failed error
	for {
		q.w.messages = 0 // rows come many at a time anyway
		kind, body, err := q.w.next()
		if err != nil {
			return errors.Join(failed, fmt.Errorf("read from the slot's copy: %w", err))
		}
		switch kind {
		case 'D':
			if len(body) < 2 {
				return errors.New("a row without columns: not the Postgres protocol")
			}
			if err := fn(body[2:]); err != nil {
				return err
			}
		case 'E':
			failed = serverError(body)
		case 'N':
			if w := serverError(body); skippedPublication(w) {
				return w
			}
		case 'Z':
			q.busy = false
			return failed
		}
	}
}

// column takes the first column off a row.
func column(row []byte) (value, rest []byte, err error) {
	if len(row) < 4 {
		return nil, nil, errors.New("a row that is too short: not the Postgres protocol")
	}
	n := binary.BigEndian.Uint32(row)
	if uint64(n) > uint64(len(row)-4) { // NULL is 1<<32 - 1
		return nil, nil, errors.New("a column that is NULL or too short: not the Postgres protocol")
	}
	return row[4 : 4+n : 4+n], row[4+n:], nil
}

// close ends the session, and with it the copy. A query that runs is cancelled,
// because the server would notice only when it sends.
func (q *slotCopy) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	defer q.w.close()
	if q.busy {
		_ = q.server.CancelRequest(ctx)
	}
	if q.w.write([]byte{'X', 0, 0, 0, 4}) != nil {
		return
	}
	// The server closes its end when the copy is gone. What it still sends of an
	// answer is of no interest.
	if deadline, ok := ctx.Deadline(); ok && q.w.conn.SetReadDeadline(deadline) == nil {
		var err error
		for scratch := make([]byte, blockSize); err == nil; {
			_, err = q.w.conn.Read(scratch)
		}
	}
}

// keepAlive makes the system notice a server that is gone: while a call is
// decoded there is silence on the connection, however long that takes.
func keepAlive(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6})
			return
		case interface{ NetConn() net.Conn }: // TLS
			conn = c.NetConn()
		default:
			return
		}
	}
}
