package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	conn, id, err := s.c.connectReplication(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if id != s.epoch {
		return false, &SlotError{
			Slot:   s.c.Slot,
			Reason: fmt.Sprintf("the server is another cluster now (system identifier %d, was %d)", id, s.epoch),
			Remedy: "check where the connection string leads; a new run takes the new cluster as it is",
		}
	}
	if err := s.checkSlot(ctx, catalog, again); err != nil {
		return false, err
	}
	w, err := hijack(conn)
	if err != nil {
		return false, err
	}
	defer w.close()
	if err := w.startReplication(ctx, s.c.Slot, s.c.Publication, 0); err != nil {
		return false, fmt.Errorf("start replication from slot %q: %w", s.c.Slot, s.slotLost(err))
	}
	// Nobody else can move the slot now.
	if err := s.checkSlot(ctx, catalog, again); err != nil {
		return false, err
	}
	s.c.Logger.InfoContext(ctx, "streaming", "slot", s.c.Slot, "from", s.Stats().Confirmed.String())

	var wg sync.WaitGroup
	statusCtx, stopStatus := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { s.reportStatus(statusCtx, w) })
	defer func() { stopStatus(); wg.Wait() }()
	stopReading := context.AfterFunc(ctx, w.interrupt)
	defer stopReading()

	err = s.read(ctx, w, s.newDecoder(b, catalog))
	if ctx.Err() == nil {
		return true, err
	}
	// Status goes on while the subscriptions finish.
	err = s.stop(ctx)
	stopStatus()
	wg.Wait()
	if statusErr := w.status(s.tracker.stored(s.stored())); statusErr == nil {
		if finishErr := w.finish(finishTimeout); finishErr != nil {
			s.c.Logger.DebugContext(ctx, "the server did not confirm the end of streaming", "error", finishErr)
		}
	}
	return true, err
}

// checkSlot refuses to read a slot that is not where this source left it: the
// server starts at the slot's own position, and silently.
func (s *Source) checkSlot(ctx context.Context, catalog *catalog, again bool) error {
	slot, err := catalog.slot(ctx)
	if err != nil {
		return fmt.Errorf("look up slot %q: %w", s.c.Slot, err)
	}
	const remedy = "changes were lost: drop the slot, if there is one, and run again for a new snapshot"
	switch {
	case !slot.exists:
		return &SlotError{Slot: s.c.Slot, Reason: "it does not exist any more", Remedy: remedy}
	case slot.walStatus == "lost":
		return &SlotError{Slot: s.c.Slot, Reason: "the server has removed WAL that it needs (max_slot_wal_keep_size)", Remedy: remedy}
	}
	if !again {
		s.tracker.start(slot.confirmed)
		return nil
	}
	if confirmed := s.Stats().Confirmed; slot.confirmed > confirmed {
		return &SlotError{
			Slot:   s.c.Slot,
			Reason: fmt.Sprintf("it is at %s, but only %s was confirmed: it was recreated, or somebody else read it", slot.confirmed, confirmed),
			Remedy: remedy,
		}
	}
	return nil
}

// slotLost recognises a start that no retry can help.
func (s *Source) slotLost(err error) error {
	switch sqlState(err) {
	case "55000": // object not in prerequisite state: the slot was invalidated
		return &SlotError{
			Slot: s.c.Slot, Reason: "the server cannot read it any more", Err: err,
			Remedy: "changes were lost: drop the slot and run again for a new snapshot",
		}
	case "42704": // undefined object: slot or publication
		return &SlotError{
			Slot: s.c.Slot, Reason: "it or its publication is gone", Err: err,
			Remedy: "changes were lost: drop the slot, if there is one, and run again for a new snapshot",
		}
	}
	return err
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
			return s.slotLost(serverError(body))
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
		if err := w.status(s.tracker.stored(s.stored())); err != nil {
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
