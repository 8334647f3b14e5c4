package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	statusInterval = time.Second
	// The server answers each status update, so this much silence means that
	// the connection is dead. A walsender that skips a huge transaction may look
	// at its mail only every half wal_sender_timeout, which is 60 s by default.
	silenceLimit = 2 * time.Minute
	// finishTimeout bounds the farewell: a server in the middle of a large
	// transaction does not listen before its end.
	finishTimeout = 2 * time.Second
)

// stream reads the slot over one connection until that ends or ctx does. It
// reports whether streaming started.
func (s *Source) stream(ctx context.Context, b *batcher, catalog *catalog, again bool) (started bool, err error) {
	conn, id, err := s.c.connectIdentified(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := s.recognise(ctx, conn, id); err != nil {
		return false, err
	}
	if err := s.checkSlot(ctx, catalog, again); err != nil {
		return false, err
	}
	options := s.c.streamOptions(serverVersion(conn), s.c.Streaming == StreamingOn && !s.unstreamed, s.c.TwoPhase && !s.onePhase)
	w, err := hijack(ctx, conn)
	if err != nil {
		return false, err
	}
	defer w.close()
	if err := w.startReplication(ctx, s.c.Slot, options); err != nil {
		if err = s.slotLost(ctx, err); !isSlotError(err) { // which says for itself what it is about
			err = fmt.Errorf("start replication from slot %q: %w", s.c.Slot, err)
		}
		return false, err
	}
	// Nobody else can move the slot now.
	if err := s.checkSlot(ctx, catalog, again); err != nil {
		return false, err
	}
	s.c.Logger.InfoContext(ctx, "streaming", "slot", s.c.Slot, "from", s.Stats().Confirmed.String())

	var wg sync.WaitGroup
	statusCtx, stopStatus := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { s.reportStatus(statusCtx, w) })
	wg.Go(func() { s.yieldToShutdown(statusCtx, w) })
	defer func() { stopStatus(); wg.Wait() }()
	stopReading := context.AfterFunc(ctx, w.interrupt)
	defer stopReading()

	spools := newSpools(s.c)
	err = s.read(ctx, w, s.newDecoder(b, catalog, spools))
	if closeErr := spools.close(); closeErr != nil {
		s.c.Logger.WarnContext(ctx, "closing the files of transactions in progress", "error", closeErr)
	}
	if ctx.Err() == nil {
		return true, err
	}
	if stopped := stoppedBy(ctx); stopped != nil {
		return true, stopped
	}
	// Status goes on while the subscriptions finish.
	err = s.stop(ctx)
	stopStatus()
	wg.Wait()
	if statusErr := s.tell(ctx, w, true); statusErr == nil {
		if finishErr := w.finish(finishTimeout); finishErr != nil {
			s.c.Logger.DebugContext(ctx, "the server did not confirm the end of streaming", "error", finishErr)
		}
	}
	return true, err
}

// newDecoder returns a decoder for a new connection that delivers to the feed.
func (s *Source) newDecoder(b *batcher, catalog describer, spools *spools) *decoder {
	d := newDecoder(b, &s.tracker, s.c.wanted, catalog, spools)
	d.messages.prefixes, d.outboxes = s.c.prefixes, s.c.outboxes
	s.backs.source = s
	d.backfills = &s.backs
	d.park = s.parkUndecodable()
	return d
}

// checkSlot refuses to read a slot that is not the one that this source left.
func (s *Source) checkSlot(ctx context.Context, catalog *catalog, again bool) error {
	slot, err := catalog.lookUp(ctx)
	if err != nil {
		return fmt.Errorf("look up slot %q: %w", s.c.Slot, err)
	}
	if err := s.sameSlot(slot); err != nil {
		return err
	}
	if slot == nil {
		return s.lost("it does not exist any more")
	}
	if !again {
		s.tracker.start(slot.confirmed)
	}
	return nil
}

// slotLost recognises an answer of the server that no retry can help.
func (s *Source) slotLost(ctx context.Context, err error) error {
	switch sqlState(err) {
	case "55000": // object not in prerequisite state: invalidated, or a standby's that cannot be read there
		q := &catalog{c: s.c}
		defer q.close(ctx)
		slot, lookUpErr := q.lookUp(ctx)
		if lookUpErr != nil {
			return fmt.Errorf("look up slot %q, which cannot be read: %w", s.c.Slot, lookUpErr) // tried again
		}
		if slot != nil && slot.synced && slot.walStatus != "lost" {
			// A failover that is not over: it becomes readable with the promotion.
			return fmt.Errorf("slot %q is the copy of the primary's, and the standby is not promoted: %v", s.c.Slot, err) //nolint:errorlint // to be tried again
		}
		if slot != nil && slot.walStatus != "lost" {
			if moved := s.sameSlot(slot); moved != nil {
				return moved // it is ahead of where it was to be moved
			}
			return &SlotError{Slot: s.c.Slot, Reason: "the server does not let it be read", Err: err, Remedy: "see the server's log"}
		}
		e := s.lost("the server cannot read it any more")
		e.Err = err
		return e
	case "42704": // undefined object: slot or publication
		e := s.lost("it or its publication is gone")
		e.Err = err
		return e
	}
	return err
}

// skippedPublication recognises the warning with which Postgres 18 and later
// leave out changes from a time when the publication did not exist. Before, it
// was an error of undefined object.
func skippedPublication(warning error) bool {
	return sqlState(warning) == "55000" && strings.Contains(warning.Error(), "skipped loading publication")
}

func (s *Source) publicationGone(cause error) error {
	e := s.lost("its publication did not exist at this point of the log")
	e.Err = cause
	return e
}

// read is the loop of the socket reader. It runs no listener; when the feed is
// full, it waits, and only the status updates go on.
func (s *Source) read(ctx context.Context, w *wire, d *decoder) error {
	for {
		kind, body, err := w.next()
		if err != nil {
			return fmt.Errorf("read from the replication connection: %w", err)
		}
		switch kind {
		case 'd':
			if err := s.copyData(ctx, d, body); err != nil {
				return err
			}
		case 'E':
			return s.slotLost(ctx, serverError(body))
		case 'N':
			if w := serverError(body); skippedPublication(w) {
				return s.publicationGone(w)
			}
		case 'c':
			return errors.New("the server ended replication")
		default: // notices and parameter changes
		}
	}
}

// copyData handles a message of the streaming replication protocol (Postgres
// manual, "Streaming Replication Protocol").
func (s *Source) copyData(ctx context.Context, d *decoder, body []byte) error {
	switch {
	case len(body) >= 25 && body[0] == 'w':
		return d.message(ctx, LSN(binary.BigEndian.Uint64(body[1:])), body[25:])
	case len(body) == 18 && body[0] == 'k':
		s.tracker.nothing(LSN(binary.BigEndian.Uint64(body[1:])), false)
		if body[17] != 0 {
			s.hurry()
		}
		if !d.open {
			return d.boundary(ctx, LSN(binary.BigEndian.Uint64(body[1:])))
		}
		return nil
	}
	return &DecodeError{Err: fmt.Errorf("a replication message of %d bytes that is neither data nor a keepalive", len(body))}
}

// reportStatus sends a status update every second and when one is asked for,
// whatever the reader and the listeners do: a stalled sink must not cost the
// connection. When the connection fails it interrupts the reader.
func (s *Source) reportStatus(ctx context.Context, w *wire) {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	for {
		if w.silent(silenceLimit) {
			s.c.Logger.WarnContext(ctx, "the server is silent; giving the connection up", "for", silenceLimit)
			w.interrupt()
			return
		}
		if err := s.tell(ctx, w, false); err != nil {
			w.interrupt()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
	}
}
