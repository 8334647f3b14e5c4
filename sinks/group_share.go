package sinks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A share is the way of a partition from the broker to its listener: from a mark on
// until it is given up.
type share struct {
	group *Group
	claim GroupClaim
	from  GroupMark
	feed  *listeners.Feed
	sub   *listeners.Subscription

	// Of the goroutine that reads.
	assembler Assembler
	part      *Part  // being added
	before    uint64 // Next of the part before it
	next      uint64 // Next of it
	fresh     bool   // nothing was read, and nothing stored before
	lost      bool   // a reset is owed, since history is gone
	last      listeners.Position

	stored GroupMark // of the goroutine that commits

	mu    sync.Mutex
	marks []shareMark
}

// A shareMark is a checkpoint once the listener has handled what is at or before a
// position.
type shareMark struct {
	at   listeners.Position
	mark GroupMark
}

func newShare(g *Group, c GroupClaim, from GroupMark, lost bool) *share {
	s := &share{
		group: g, claim: c, from: from, stored: from, next: from.Next, before: from.Next, fresh: from.Fresh, lost: lost,
		assembler: Assembler{MaxTxBytes: g.opts.MaxTxBytes},
		feed:      listeners.NewFeed(&listeners.FeedOptions{MaxBytes: g.opts.MaxBytes}),
	}
	if !from.Position.IsZero() {
		s.assembler.Follow(from.Position)
	}
	if from.Snapshot {
		s.assembler.Begin()
	}
	return s
}

// run returns when nothing is handled any more.
func (s *share) run(held context.Context, l listeners.Listener) error {
	g := s.group
	// Calling ends when the listener has to stop, reading a little earlier.
	calling, stopCalling := context.WithCancelCause(held)
	defer stopCalling(nil)
	reading, stopReading := context.WithCancel(calling)
	defer stopReading()

	var err error
	s.sub, err = s.feed.Subscribe(fmt.Sprintf("%s/%s", g.name, s.claim.Partition()), ownedListener(calling, l), g.opts.subscribe(), nil)
	if err != nil {
		return fmt.Errorf("group %s, partition %s: %w", g.name, s.claim.Partition(), err)
	}
	defer g.note(s.claim.Partition(), s.sub)()

	var readErr error
	read := make(chan struct{})
	go func() {
		defer close(read)
		readErr = s.claim.Read(reading, s.from, func(parts []GroupPart) error { return s.take(reading, parts) })
	}()
	s.watch(calling, read)
	told, closed := calling.Err() != nil || s.revoked(), isEnded(s.sub)
	stopReading()
	<-read

	s.feed.Close()
	if err := s.drain(held, stopCalling); err != nil {
		return err
	}
	s.commitLast(held)
	var failed *listeners.ListenerError
	switch err := s.sub.Err(); {
	case held.Err() != nil:
		return nil // Held's cause says why
	case err == nil && told:
		return nil
	case err == nil && closed:
		return &GroupListenerError{Group: g.name, Partition: s.claim.Partition(), Err: listeners.ErrClosed}
	case err == nil:
		return readErr
	case s.revoked() && errors.As(err, &failed):
		// Whoever has the partition next is told the batch again.
		g.opts.Logger.WarnContext(held, "a batch was not handled before the partition was given up",
			"group", g.name, "partition", s.claim.Partition(), "error", err)
		return nil
	default:
		return &GroupListenerError{Group: g.name, Partition: s.claim.Partition(), Err: err}
	}
}

// watch commits until the share is to end.
func (s *share) watch(ctx context.Context, read <-chan struct{}) {
	tick := time.NewTicker(s.group.opts.Checkpoint)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.commit(ctx)
		case <-read:
			return
		case <-s.sub.Done():
			return
		case <-s.claim.Revoked():
			return
		case <-ctx.Done():
			return
		}
	}
}

func isEnded(sub *listeners.Subscription) bool {
	select {
	case <-sub.Done():
		return true
	default:
		return false
	}
}

func (s *share) revoked() bool {
	select {
	case <-s.claim.Revoked():
		return true
	default:
		return false
	}
}

// drain waits until the listener has finished the batch in hand. If it takes
// too long its context ends.
func (s *share) drain(held context.Context, stop context.CancelCauseFunc) error {
	limit := s.group.opts.DrainTimeout
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(s.group.opts.Checkpoint)
	defer tick.Stop()
	for lost, told := held.Done(), false; ; {
		select {
		case <-s.sub.Done():
			return nil
		case <-tick.C:
			if held.Err() == nil {
				s.commit(held)
			}
		case <-lost:
			lost, told = nil, true
			timeout.Reset(limit)
		case <-timeout.C:
			if told {
				return &GroupStuckError{Group: s.group.name, Partition: s.claim.Partition(), After: limit}
			}
			stop(fmt.Errorf("group %s: partition %s is given up, and the listener took longer than DrainTimeout, %s",
				s.group.name, s.claim.Partition(), limit))
			told = true
			timeout.Reset(limit)
		}
	}
}

// take hands on what was read.
func (s *share) take(ctx context.Context, parts []GroupPart) error {
	emit := func(b *listeners.Batch) error { return s.append(ctx, b) }
	for i := range parts {
		p := &parts[i]
		s.before, s.next = s.next, p.Next
		if s.part = nil; p.Some {
			s.part = &p.Part
			if err := s.add(&p.Part, emit); err != nil {
				return err
			}
			s.part = nil
		}
		if p.Complete {
			if err := s.assembler.End(emit); err != nil {
				return err
			}
		}
	}
	if err := s.assembler.Flush(emit); err != nil {
		return err
	}
	if !s.assembler.told {
		s.mark(s.last, s.assembler.Last())
	}
	return nil
}

func (s *share) add(p *Part, emit func(*listeners.Batch) error) error {
	whole := p.Kind == listeners.Reset && p.Collections == nil
	if c := s.claim.Partition().Collection; c != "" && p.Kind == listeners.Reset {
		// It is told in the partitions of every collection, and says nothing of others there.
		p.Collections, whole = []string{c}, true
	}
	first := s.fresh && p.Kind == listeners.Snapshot // whose reset is not stored
	if first || s.lost && !whole {
		reset := &listeners.Batch{
			Kind: listeners.Reset, Source: p.Source, Tx: p.Tx, Position: predecessor(p.Position),
			First: true, Last: true, Size: batchBytes,
		}
		if c := s.claim.Partition().Collection; c != "" {
			reset.Collections = []string{c}
		}
		if err := emit(reset); err != nil {
			return err
		}
		if p.Kind == listeners.Snapshot {
			s.assembler.Begin()
		}
	}
	s.fresh, s.lost = false, false
	if whole && s.assembler.told && s.assembler.open.Kind == listeners.Changes {
		// The assembler would take it for one that was cut off. But its end is
		// in another partition.
		if err := s.assembler.End(emit); err != nil {
			return err
		}
	}
	return s.assembler.Add(p, emit)
}

// append hands a batch to the listener's feed. Positions there grow with each batch,
// so that they tell what was handled: a Live may have that of the last row.
func (s *share) append(ctx context.Context, b *listeners.Batch) error {
	if err := s.feed.Reserve(ctx); err != nil {
		return err
	}
	at := b.Position
	if at.Compare(s.last) <= 0 {
		c := *b
		c.Position = successor(s.last)
		b = &c
	}
	s.last = b.Position
	s.feed.Append(b)
	if b.Kind != listeners.Changes || b.Last {
		s.mark(b.Position, at)
	}
	return nil
}

// mark notes that the partition is handled up to where it was read, as soon as the
// listener has handled what is at or before a position. Behind a lost one nothing
// is handled before its reset is told: a checkpoint would hide the loss.
func (s *share) mark(handled, at listeners.Position) {
	if s.lost {
		return
	}
	m := GroupMark{Next: s.next, Stream: s.from.Stream, Position: at, Snapshot: s.assembler.within(), Fresh: s.fresh}
	if s.part != nil && at.Compare(s.part.Position) < 0 {
		m.Next = s.before // it does not contain the part that is being added
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.marks); n > 0 && s.marks[n-1].at == handled {
		s.marks[n-1].mark = m
		return
	}
	s.marks = append(s.marks, shareMark{at: handled, mark: m})
}

// handled returns the checkpoint to store.
func (s *share) handled() GroupMark {
	at := s.sub.Handled()
	s.mu.Lock()
	defer s.mu.Unlock()
	m, n := s.stored, 0
	for n < len(s.marks) && s.marks[n].at.Compare(at) <= 0 {
		m = s.marks[n].mark
		n++
	}
	s.marks = append(s.marks[:0], s.marks[n:]...)
	return m
}

// commitLast stores the last checkpoint, so that the next member handles nothing
// again. It tries for the time of a lease.
func (s *share) commitLast(held context.Context) {
	ctx, cancel := context.WithTimeout(held, s.group.opts.Lease)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for ctx.Err() == nil && !s.commit(ctx) {
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

// commit stores the checkpoint if it has moved, and returns false if that
// failed. Then it is tried again with the next one; if the partition is lost, held ends.
func (s *share) commit(ctx context.Context) bool {
	m := s.handled()
	if m == s.stored {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, s.group.opts.Lease)
	defer cancel()
	if err := s.claim.Commit(ctx, m); err != nil {
		s.group.opts.Logger.DebugContext(ctx, "checkpoint not stored", "group", s.group.name, "partition", s.claim.Partition(), "error", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.marks = append([]shareMark{{mark: m}}, s.marks...)
		return false
	}
	s.stored = m
	return true
}

// predecessor returns the last position before p.
func predecessor(p listeners.Position) listeners.Position {
	switch {
	case p.Index > 0:
		p.Index--
	case p.Commit > 0:
		p.Commit, p.Index = p.Commit-1, math.MaxUint32
	case p.Epoch > 0:
		p.Epoch, p.Commit, p.Index = p.Epoch-1, math.MaxUint64, math.MaxUint32
	}
	return p
}

// successor returns the first position after p.
func successor(p listeners.Position) listeners.Position {
	switch {
	case p.Index < math.MaxUint32:
		p.Index++
	case p.Commit < math.MaxUint64:
		p.Commit, p.Index = p.Commit+1, 0
	default:
		p.Epoch, p.Commit, p.Index = p.Epoch+1, 0, 0
	}
	return p
}
