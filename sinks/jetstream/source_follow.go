package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

const (
	// burstMessages is how many messages are handled at once at most.
	burstMessages = 512
	// idleCheck is how long a reader hears nothing before it looks whether the
	// stream is still the one that it reads.
	idleCheck = time.Second
	// firstAsk and lastAsk bound one question to the server. One that is lost
	// with its connection is never answered, so the first tries are short.
	firstAsk = 250 * time.Millisecond
	lastAsk  = 5 * time.Second
	// lastSearch bounds a search, which takes one question after the other: over a slow
	// line a bisection of a long stream needs more than lastAsk.
	lastSearch = 10 * time.Minute
	// goneAfter is how long a stream that is not found may be on its way back, and
	// how long a leader may lack what a replica has handed out.
	goneAfter = 5 * time.Second
	// leaderWait is the pause before a leader that is behind is asked again.
	leaderWait = 20 * time.Millisecond
)

// A cursor reads a stream, without a gap and without a twin, over as many
// consumers and connections as it takes. It knows nothing of what the messages
// mean.
type cursor struct {
	nc     *nats.Conn
	js     natsjs.JetStream
	stream string
	log    *slog.Logger

	next    uint64        // the sequence of the next message
	created time.Time     // of the stream that is read
	tip     uint64        // the last sequence when the cursor was made
	full    time.Duration // how long a limit of consumers is waited for; 0 for fullFor

	consumer *consumer // nil while there is none
	said     error     // the connection's last error when that was made
	retry    *backoff.ExponentialBackOff
	list     []arrival
	messages []sinks.LogMessage // of list
}

var _ sinks.LogReader = (*cursor)(nil)

func newRetry() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
}

// An arrival is a message with its place.
type arrival struct {
	msg     natsjs.Msg
	seq     uint64
	pending uint64 // messages behind it when it was sent
}

// A consumer is one of the server, and who receives from it.
type consumer struct {
	name     string
	ctx      context.Context //nolint:containedctx // ends when the consumer is of no more use; its cause says why
	stop     context.CancelCauseFunc
	messages natsjs.MessagesContext
	arrivals chan arrival
	wg       sync.WaitGroup
}

// Next implements [sinks.LogReader]. Apart from messages that somebody deleted,
// none is missing. If the stream's limits, a purge or its deletion took what was
// to be read, it returns a [sinks.HistoryError], and nothing from behind the hole.
func (c *cursor) Next(ctx context.Context) ([]sinks.LogMessage, error) {
	clear(c.list)
	clear(c.messages)
	for {
		list, err := c.try(ctx)
		switch {
		case err == nil && len(list) > 0:
			c.retry.Reset()
			return list, nil
		case err == nil:
			return nil, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		c.Close()
		if no := c.unheard(); no != nil {
			return nil, no
		}
		var lost *sinks.HistoryError
		var wrong *sinks.PlaceError
		if errors.As(err, &lost) || errors.As(err, &wrong) || errors.Is(err, nats.ErrConnectionClosed) {
			return nil, err
		}
		c.log.DebugContext(ctx, "reading interrupted", "stream", c.stream, "next", c.next, "error", err)
		wait := time.NewTimer(c.retry.NextBackOff())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// try reads with the consumer that there is, or a new one.
func (c *cursor) try(ctx context.Context) ([]sinks.LogMessage, error) {
	if c.consumer == nil {
		left, err := c.consume(ctx)
		if err != nil || left == 0 {
			return nil, err
		}
	}
	if err := c.gather(ctx, c.consumer); err != nil {
		return nil, err
	}
	if hole, ok := c.hole(c.list); ok {
		if err := c.check(ctx, hole); err != nil {
			return nil, err
		}
	}
	c.messages = c.messages[:0]
	for i := range c.list {
		a := &c.list[i]
		h := a.msg.Headers()
		address := a.msg.Subject()
		if plain := h.Get(headerAddress); plain != "" {
			address = plain // of an entry of a bucket
		}
		c.messages = append(c.messages, sinks.LogMessage{
			Place: a.seq, Address: address, Attribute: attributes(h), Body: a.msg.Data(),
			Tip: a.seq >= c.tip || a.pending == 0,
		})
	}
	c.next = c.list[len(c.list)-1].seq + 1
	return c.messages, nil
}

// consume begins a consumer, and returns how many messages it is to send that are
// stored already.
func (c *cursor) consume(ctx context.Context) (uint64, error) {
	if err := c.check(ctx, c.next); err != nil {
		return 0, err
	}
	var made natsjs.Consumer
	err := c.persist(ctx, func(ctx context.Context) (err error) {
		made, err = c.js.CreateConsumer(ctx, c.stream, natsjs.ConsumerConfig{
			DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: max(c.next, 1),
			AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: consumerIdle,
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	info := made.CachedInfo()
	c.said = c.nc.LastError()
	messages, err := made.Messages(natsjs.PullMaxMessages(2*burstMessages),
		natsjs.PullExpiry(10*time.Second), natsjs.PullHeartbeat(time.Second), natsjs.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return 0, err
	}
	r := &consumer{name: info.Name, messages: messages, arrivals: make(chan arrival, burstMessages)}
	r.ctx, r.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	r.wg.Go(func() { r.stop(receive(r)) })
	r.wg.Go(func() { c.watch(r.ctx, r.stop) })
	c.consumer = r
	return info.NumPending, nil
}

// unheard returns an error if the server has forbidden to ask the consumer for messages:
// then none comes, and nothing else says why.
func (c *cursor) unheard() error {
	no := forbidden(c.nc, c.said, "CONSUMER.MSG.NEXT."+c.stream+".")
	if no == nil {
		return nil
	}
	return &sinks.PlaceError{Place: place(c.stream), Err: no, Reason: "this user may not do what is needed; allow it"}
}

// Close implements [sinks.LogReader].
func (c *cursor) Close() {
	r := c.consumer
	if r == nil {
		return
	}
	c.consumer = nil
	r.stop(nil)
	r.messages.Stop()
	r.wg.Wait()
	c.forget(context.WithoutCancel(r.ctx), r.name)
}

// Describe implements [sinks.LogReader].
func (c *cursor) Describe(place uint64) string { return fmt.Sprintf("sequence %d", place) }

// gather waits for messages, and takes what has arrived into c.list.
func (c *cursor) gather(ctx context.Context, r *consumer) error {
	c.list = c.list[:0]
	quiet := time.NewTimer(idleCheck)
	defer quiet.Stop()
	for len(c.list) == 0 {
		select {
		case a := <-r.arrivals:
			c.list = append(c.list, a)
		case <-quiet.C:
			if err := c.check(ctx, c.next); err != nil {
				return err
			}
			quiet.Reset(idleCheck)
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for len(c.list) < burstMessages {
		select {
		case a := <-r.arrivals:
			c.list = append(c.list, a)
		default:
			return nil
		}
	}
	return nil
}

// hole returns the last sequence that is missing in a burst. If the stream
// still holds older messages than that, it was deleted on its own and was not
// what the limits took.
func (c *cursor) hole(list []arrival) (uint64, bool) {
	next, hole, found := c.next, uint64(0), false
	for i := range list {
		if list[i].seq != next {
			if !found {
				hole, found = next, true
			}
		}
		next = list[i].seq + 1
	}
	return hole, found
}

// receive passes on what the server sends, and returns why it stopped.
func receive(r *consumer) error {
	for last := uint64(0); ; last++ {
		m, err := r.messages.Next(natsjs.NextContext(r.ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != last+1 {
			return fmt.Errorf("delivery %d came after %d", meta.Sequence.Consumer, last)
		}
		select {
		case r.arrivals <- arrival{msg: m, seq: meta.Sequence.Stream, pending: meta.NumPending}:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
}

// watch ends a consumer when its connection is lost, since nobody knows what it
// had sent.
func (c *cursor) watch(ctx context.Context, stop context.CancelCauseFunc) {
	status := c.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(status)
	select {
	case <-status:
		stop(errDisconnected)
	case <-ctx.Done():
	}
}

// forget deletes a consumer. If that fails, the server does it soon.
func (c *cursor) forget(ctx context.Context, consumer string) {
	if !c.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), firstAsk)
	defer cancel()
	_ = c.js.DeleteConsumer(ctx, c.stream, consumer) // see above
}

// check reports with a [sinks.HistoryError] that the stream does not hold the
// message with a sequence any more, or is another one.
func (c *cursor) check(ctx context.Context, seq uint64) error {
	info, err := c.present(ctx)
	if err != nil {
		return err
	}
	lost := (&streamLog{stream: c.stream}).lost(info, max(seq, 1))
	if c.created.IsZero() {
		c.created = info.Created
	}
	if !info.Created.Equal(c.created) || info.State.LastSeq+1 < c.next {
		lost.Replaced = true
		return lost
	}
	if compacted(info) {
		return nil // what is gone was overwritten
	}
	if seq < info.State.FirstSeq && info.State.FirstSeq > origin(info) {
		return lost
	}
	return nil
}

// compacted reports whether a stream keeps the last message of each subject, as
// a bucket does.
func compacted(info *natsjs.StreamInfo) bool { return info.Config.MaxMsgsPerSubject == 1 }

// origin returns the sequence of a stream's very first message.
func origin(info *natsjs.StreamInfo) uint64 { return max(info.Config.FirstSeq, 1) }

// info asks for the stream's state, for as long as that may help.
func (c *cursor) info(ctx context.Context) (*natsjs.StreamInfo, error) {
	var info *natsjs.StreamInfo
	err := c.persist(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, c.stream)
		if err != nil {
			return err
		}
		info = s.CachedInfo()
		if c := info.Cluster; c != nil && c.Leader == "" {
			return errNoLeader // the answer is a follower's, and an old one looks like another stream
		}
		return nil
	})
	return info, err
}

// present is info, from a leader that has all that was read. A replica hands out what
// is committed, and the leader may say a moment later that it has it.
func (c *cursor) present(ctx context.Context) (*natsjs.StreamInfo, error) {
	for began := time.Now(); ; {
		info, err := c.info(ctx)
		if err != nil || info.Config.Replicas < 2 || info.State.LastSeq+1 >= c.next || time.Since(began) > goneAfter ||
			!c.created.IsZero() && !info.Created.Equal(c.created) {
			return info, err
		}
		c.log.DebugContext(ctx, "the leader is behind what was read", "stream", c.stream, "next", c.next, "last", info.State.LastSeq)
		if err := wait(ctx, leaderWait); err != nil {
			return nil, err
		}
	}
}

// persist calls ask until it succeeds, or fails for good.
func (c *cursor) persist(ctx context.Context, ask func(context.Context) error) error {
	return c.persistFor(ctx, lastAsk, ask)
}

// persistFor is persist with the longest time that one call of ask may take. Only a
// call that was cut short gives the next one more.
func (c *cursor) persistFor(ctx context.Context, longest time.Duration, ask func(context.Context) error) error {
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
	var missing, full time.Time
	for timeout := firstAsk; ; {
		said := c.nc.LastError()
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := ask(limited)
		silent := limited.Err() != nil
		if silent {
			timeout = min(2*timeout, longest)
		}
		cancel()
		var lost *sinks.HistoryError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &lost):
			return err
		case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrPermissionViolation):
			return fmt.Errorf("stream %s: %w", c.stream, err)
		case errors.Is(err, natsjs.ErrJetStreamNotEnabled), errors.Is(err, natsjs.ErrJetStreamNotEnabledForAccount):
			return &sinks.PlaceError{Place: place(c.stream), Err: err, Reason: "there is no JetStream on this server or in this account; enable it"}
		case errors.Is(err, natsjs.ErrStreamNotFound):
			if c.created.IsZero() {
				return &sinks.PlaceError{Place: place(c.stream), Err: err, Reason: "there is no such stream; start its writer first, or see whether the name is right"}
			}
			if missing.IsZero() {
				missing = time.Now()
			}
			if time.Since(missing) > goneAfter {
				return &sinks.PlaceError{Place: place(c.stream), Err: err, Reason: "it was deleted while it was read; start its writer, then read again"}
			}
		case refusal(err) != "":
			if full.IsZero() {
				full = time.Now()
			}
			if api, _ := errors.AsType[*natsjs.APIError](err); api.ErrorCode != codeMaxConsumers || time.Since(full) > cmp.Or(c.full, fullFor) {
				return &sinks.PlaceError{Place: place(c.stream), Err: err, Reason: refusal(err)}
			}
		case silent:
			if no := forbidden(c.nc, said, c.stream); no != nil {
				return &sinks.PlaceError{Place: place(c.stream), Err: no, Reason: "this user may not do what is needed; allow it"}
			}
		}
		c.log.DebugContext(ctx, "the server does not answer yet", "stream", c.stream, "error", err)
		wait := time.NewTimer(retry.NextBackOff())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}
