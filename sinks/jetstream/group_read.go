package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// firstLook and lastLook are how long a reader that has all there is waits
	// before it looks whether the open transaction has ended.
	firstLook = time.Millisecond
	lastLook  = 200 * time.Millisecond
	// advanceEvery is how often a partition without messages moves its
	// checkpoint, so that it stays within what the stream keeps.
	advanceEvery = 5 * time.Second
	// groupAhead is how many messages of a partition wait at the client library,
	// and as many again here: a member may have many partitions.
	groupAhead = 64
)

// A groupReader reads one partition, over as many consumers and connections as
// it takes. One goroutine at a time.
type groupReader struct {
	cursor  *cursor
	claim   *groupClaim
	filters []string
	decoder *sinks.Decoder
	take    func([]sinks.GroupPart) error

	open     *sinks.Part // the last part, if its transaction or snapshot goes on
	advanced time.Time
	parts    []sinks.GroupPart
}

// Read implements [sinks.GroupClaim].
func (c *groupClaim) Read(ctx context.Context, from sinks.GroupMark, take func([]sinks.GroupPart) error) error {
	g := c.in.groups
	r := &groupReader{
		cursor: &cursor{
			nc: g.nc, js: g.js, stream: g.opts.Stream, log: c.in.log, next: from.Next, created: time.Unix(0, from.Stream),
		},
		claim: c, filters: g.filters(c.number), decoder: sinks.NewDecoder(), take: take, advanced: time.Now(),
	}
	if from.Snapshot {
		r.open = &sinks.Part{Kind: listeners.Snapshot, Position: from.Position}
	}
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
	for {
		began := r.cursor.next
		err := r.consume(ctx)
		if no := r.cursor.unheard(); no != nil && ctx.Err() == nil {
			return no
		}
		var wrong *sinks.PlaceError
		var gone *sinks.GroupHistoryError
		var own *burstError
		switch {
		case errors.As(err, &own):
			return own.err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &gone), errors.As(err, &wrong), errors.Is(err, nats.ErrConnectionClosed):
			return err
		}
		c.in.log.DebugContext(ctx, "reading interrupted", "partition", c.number, "next", r.cursor.next, "error", err)
		if r.cursor.next != began {
			retry.Reset()
		}
		wait := time.NewTimer(retry.NextBackOff())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// A burstError is one that another consumer would not mend.
type burstError struct{ err error }

func (e *burstError) Error() string { return e.err.Error() }

// consume reads with one consumer, until something goes wrong.
func (r *groupReader) consume(ctx context.Context) error {
	c := r.cursor
	if err := r.check(ctx); err != nil {
		return err
	}
	var made natsjs.Consumer
	err := c.persist(ctx, func(ctx context.Context) (err error) {
		made, err = c.js.CreateConsumer(ctx, c.stream, natsjs.ConsumerConfig{
			DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: c.next, FilterSubjects: r.filters,
			AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: consumerIdle,
		})
		return err
	})
	if err != nil {
		return err
	}
	c.said = c.nc.LastError()
	messages, err := made.Messages(natsjs.PullMaxMessages(groupAhead),
		natsjs.PullExpiry(10*time.Second), natsjs.PullHeartbeat(time.Second), natsjs.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	reading := &consumer{name: made.CachedInfo().Name, messages: messages, arrivals: make(chan arrival, groupAhead)}
	reading.ctx, reading.stop = context.WithCancelCause(ctx)
	reading.wg.Go(func() { reading.stop(receive(reading)) })
	reading.wg.Go(func() { c.watch(reading.ctx, reading.stop) })
	c.consumer = reading
	defer c.Close()
	return r.handle(reading.ctx, reading.arrivals)
}

// handle takes what arrives, and looks at the stream's end when nothing does.
func (r *groupReader) handle(ctx context.Context, arrivals <-chan arrival) error {
	quiet := firstLook
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case a := <-arrivals:
			if err := r.burst(ctx, a, arrivals); err != nil {
				return err
			}
			quiet = firstLook
		case <-timer.C:
			if err := r.look(ctx); err != nil {
				return err
			}
			quiet = min(2*quiet, lastLook)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		timer.Reset(quiet)
	}
}

// burst hands on what has arrived, once it is certain that nothing before it was
// taken by the stream's limits.
func (r *groupReader) burst(ctx context.Context, first arrival, arrivals <-chan arrival) error {
	clear(r.parts)
	r.parts = r.parts[:0]
	for a := first; ; {
		if err := r.add(ctx, &a); err != nil {
			return err
		}
		if len(r.parts) == burstMessages {
			break
		}
		select {
		case a = <-arrivals:
			continue
		default:
		}
		break
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	return r.hand(r.parts)
}

func (r *groupReader) hand(parts []sinks.GroupPart) error {
	if err := r.take(parts); err != nil {
		return &burstError{err}
	}
	last := &parts[len(parts)-1]
	r.cursor.next, r.advanced = last.Next, time.Now()
	for i := range parts {
		if p := &parts[i]; p.Some {
			r.open = under(&p.Part)
		} else if p.Complete {
			r.open = nil
		}
	}
	return nil
}

// under returns the part if something goes on behind it.
func under(p *sinks.Part) *sinks.Part {
	if p.TxEnd || p.Kind == listeners.Live {
		return nil
	}
	return &sinks.Part{Kind: p.Kind, Position: p.Position}
}

func (r *groupReader) add(ctx context.Context, a *arrival) error {
	p := sinks.GroupPart{Next: a.seq + 1}
	h := a.msg.Headers()
	if h.Get(headerSequence) == "" {
		r.cursor.log.WarnContext(ctx, "a message is no event and is left out", "stream", r.cursor.stream, "sequence", a.seq, "subject", a.msg.Subject())
	} else {
		var err error
		p.Part, err = r.decoder.Decode(a.msg.Subject(), attributes(h), a.msg.Data())
		if parked, ok := errors.AsType[*sinks.ParkedError](err); ok {
			var body []byte
			if body, err = unparkPatiently(ctx, r.cursor.js, parked.Ref); err == nil {
				p.Part, err = r.decoder.Decode(a.msg.Subject(), attributes(h), body)
			}
		}
		if err != nil {
			return &burstError{fmt.Errorf("stream %s: sequence %d: %w", r.cursor.stream, a.seq, err)}
		}
		p.Some = true
	}
	r.parts = append(r.parts, p)
	return nil
}

// check reports with a [sinks.GroupHistoryError] that the stream may not hold
// everything from the next sequence on any more, or is another one.
func (r *groupReader) check(ctx context.Context) error {
	c := r.cursor
	info, err := c.present(ctx)
	if err != nil {
		return err
	}
	gone := &sinks.GroupHistoryError{
		Group: r.claim.in.member.Group, Partition: r.claim.Partition(), Wanted: c.next,
		Oldest: sinks.GroupMark{Next: max(info.State.FirstSeq, 1), Stream: info.Created.UnixNano()},
	}
	switch {
	case !info.Created.Equal(c.created) || info.State.LastSeq+1 < c.next:
		gone.Replaced = true
		return gone
	case c.next < info.State.FirstSeq && info.State.FirstSeq > origin(info):
		return gone
	}
	return nil
}

// look asks whether the transaction under way has ended in another partition, or,
// if there is none, up to where the partition holds nothing.
func (r *groupReader) look(ctx context.Context) error {
	if r.open == nil {
		if time.Since(r.advanced) < advanceEvery {
			return nil
		}
		r.advanced = time.Now()
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	end, err := r.end(ctx)
	if err != nil || end == 0 {
		return err
	}
	return r.hand([]sinks.GroupPart{{Next: end + 1, Complete: r.open != nil}})
}

// end returns the last sequence of the stream, if what is under way has ended there or before, and
// if the partition holds nothing up to there that did not arrive; 0 otherwise. It asks
// the leader, since a replica may not have yet what another one has.
func (r *groupReader) end(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, lastAsk)
	defer cancel()
	c := r.cursor
	last, err := askLeader(ctx, c.nc, c.stream, map[string]any{"last_by_subj": ">"})
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if last.Sequence < c.next || r.open != nil && !ends(r.open, last) {
		return 0, nil
	}
	for _, filter := range r.filters {
		next, err := askLeader(ctx, c.nc, c.stream, map[string]any{"seq": c.next, "next_by_subj": filter})
		switch {
		case errors.Is(err, natsjs.ErrMsgNotFound):
		case err != nil:
			return 0, err
		case next.Sequence <= last.Sequence:
			return 0, nil // it is on its way
		}
	}
	return last.Sequence, nil
}

// ends reports whether what is under way at a part is over at a later message of the
// stream.
func ends(open *sinks.Part, last *natsjs.RawStreamMsg) bool {
	at, err := listeners.ParsePosition(last.Header.Get(headerSequence))
	if err != nil {
		return false
	}
	op := operation(last.Subject)
	txEnd := last.Header.Get(headerTxEnd) == "true"
	if open.Kind == listeners.Changes {
		return txEnd || op == "reset" || op == "live" || at.Epoch != open.Position.Epoch || at.Commit != open.Position.Commit
	}
	switch op {
	case "reset":
		return false
	case "read":
		return txEnd
	}
	return last.Header.Get(headerFilling) != "true"
}
