package jetstream

import (
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
	// goneAfter is how long a stream that is not found may be on its way back.
	goneAfter = 5 * time.Second
)

// A cursor reads a stream, without a gap and without a twin, over as many
// consumers and connections as it takes. It knows nothing of what the messages
// mean. One goroutine at a time.
type cursor struct {
	nc     *nats.Conn
	js     natsjs.JetStream
	stream string
	log    *slog.Logger

	next    uint64    // the sequence of the next message
	created time.Time // of the stream that is read
}

// An arrival is a message with its place.
type arrival struct {
	msg     natsjs.Msg
	seq     uint64
	pending uint64 // messages behind it when it was sent
	stored  time.Time
}

// errStop ends follow without an error.
var errStop = errors.New("stop")

// follow calls burst with the messages from c.next on, until that returns an
// error. errStop ends it with nil. It is called without messages when there are
// none yet. The messages of a burst are those next in the stream: apart from
// messages that somebody deleted, none is missing. If the stream's limits, a
// purge or its deletion took what was to be read, follow returns a
// [HistoryError], and burst has not seen anything behind the hole.
func (c *cursor) follow(ctx context.Context, burst func([]arrival) error) error {
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
	for {
		began := c.next
		err := c.consume(ctx, burst)
		var lost *HistoryError
		var wrong *sinks.PlaceError
		var own *burstError
		switch {
		case errors.Is(err, errStop):
			return nil
		case errors.As(err, &own):
			return own.err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &lost), errors.As(err, &wrong), errors.Is(err, nats.ErrConnectionClosed):
			return err
		}
		c.log.DebugContext(ctx, "reading interrupted", "stream", c.stream, "next", c.next, "error", err)
		if c.next != began {
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

// A burstError is an error of who reads, as opposed to one of reading.
type burstError struct{ err error }

func (e *burstError) Error() string { return e.err.Error() }
func (e *burstError) Unwrap() error { return e.err }

// consume reads with one consumer, until something goes wrong.
func (c *cursor) consume(ctx context.Context, burst func([]arrival) error) error {
	if err := c.check(ctx, c.next); err != nil {
		return err
	}
	var consumer natsjs.Consumer
	err := c.persist(ctx, func(ctx context.Context) (err error) {
		consumer, err = c.js.CreateConsumer(ctx, c.stream, natsjs.ConsumerConfig{
			DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: max(c.next, 1),
			AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: 30 * time.Second,
		})
		return err
	})
	if err != nil {
		return err
	}
	name := consumer.CachedInfo().Name
	messages, err := consumer.Messages(natsjs.PullMaxMessages(2*burstMessages),
		natsjs.PullExpiry(10*time.Second), natsjs.PullHeartbeat(time.Second), natsjs.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	inner, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	arrivals := make(chan arrival, burstMessages)
	wg.Go(func() { stop(c.receive(inner, messages, arrivals)) })
	wg.Go(func() { c.watch(inner, stop) })
	defer func() {
		stop(nil)
		messages.Stop()
		wg.Wait()
		c.forget(ctx, name)
	}()
	if consumer.CachedInfo().NumPending == 0 {
		if err := call(burst, nil); err != nil {
			return err
		}
	}
	return c.handle(inner, arrivals, burst)
}

func call(burst func([]arrival) error, list []arrival) error {
	err := burst(list)
	if err != nil && !errors.Is(err, errStop) {
		return &burstError{err}
	}
	return err
}

// handle takes what has arrived in bursts.
func (c *cursor) handle(ctx context.Context, arrivals <-chan arrival, burst func([]arrival) error) error {
	list := make([]arrival, 0, burstMessages)
	quiet := time.NewTimer(idleCheck)
	defer quiet.Stop()
	for {
		list = list[:0]
		select {
		case a := <-arrivals:
			list = append(list, a)
		case <-quiet.C:
			if err := c.check(ctx, c.next); err != nil {
				return err
			}
			quiet.Reset(idleCheck)
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	drain:
		for len(list) < burstMessages {
			select {
			case a := <-arrivals:
				list = append(list, a)
			default:
				break drain
			}
		}
		if hole, ok := c.hole(list); ok {
			if err := c.check(ctx, hole); err != nil {
				return err
			}
		}
		if err := call(burst, list); err != nil {
			return err
		}
		c.next = list[len(list)-1].seq + 1
		clear(list)
		quiet.Reset(idleCheck)
	}
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
func (c *cursor) receive(ctx context.Context, messages natsjs.MessagesContext, arrivals chan<- arrival) error {
	for last := uint64(0); ; last++ {
		m, err := messages.Next(natsjs.NextContext(ctx))
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
		case arrivals <- arrival{msg: m, seq: meta.Sequence.Stream, pending: meta.NumPending, stored: meta.Timestamp}:
		case <-ctx.Done():
			return context.Cause(ctx)
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

// check reports with a [HistoryError] that the stream does not hold the
// message with a sequence any more, or is another one.
func (c *cursor) check(ctx context.Context, seq uint64) error {
	info, err := c.info(ctx)
	if err != nil {
		return err
	}
	lost := &HistoryError{Stream: c.stream, Wanted: seq, First: info.State.FirstSeq, Last: info.State.LastSeq}
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
		if err == nil {
			info = s.CachedInfo()
		}
		return err
	})
	return info, err
}

// persist calls ask until it succeeds, or fails for good.
func (c *cursor) persist(ctx context.Context, ask func(context.Context) error) error {
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
	var missing time.Time
	for timeout := firstAsk; ; timeout = min(2*timeout, lastAsk) {
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := ask(limited)
		cancel()
		var lost *HistoryError
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
