package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// A buried is a message on its way to the dead letters.
type buried struct {
	letter  sinks.DeadLetter
	subject string
	header  nats.Header
	body    []byte
	id      string
	origin  string
	stored  time.Time
}

// bury stores a dead letter. The id makes one of several: a worker may do it
// again after a crash, and the safety net beside it.
func (b *CommandBroker) bury(ctx context.Context, queue string, d *buried) error {
	m := nats.NewMsg(DeadSubject(queue))
	m.Data = d.body
	copyHeader(m.Header, d.header)
	putDead(m.Header, &d.letter, d.origin, d.subject, d.id)
	m.Header[natsjs.MsgIDHeader] = []string{stored(d.origin, d.stored)}
	m.Header[natsjs.ExpectedStreamHeader] = []string{DeadStream(queue)}
	b.cut(m, d.header)
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	_, err := b.js.PublishMsg(ctx, m, natsjs.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("stream %s: %w", DeadStream(queue), err)
	}
	return nil
}

// stored names a message for good: a stream made anew has its sequences again.
func stored(origin string, at time.Time) string {
	return sinks.EscapeHeader(origin + " " + at.UTC().Format(time.RFC3339Nano))
}

// copyHeader leaves out what belongs to the message that it was.
func copyHeader(to, from nats.Header) {
	maps.Copy(to, from)
	maps.DeleteFunc(to, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") })
}

// cut makes a dead letter fit whose message came from elsewhere, and was as
// large as the server allows: better a letter without its end than none.
func (b *CommandBroker) cut(m *nats.Msg, original nats.Header) {
	over := payload(m) - b.nc.MaxPayload()
	if over <= 0 {
		return
	}
	m.Header[headerDeadCut] = []string{strconv.Itoa(len(m.Data))} // no number is longer
	over = payload(m) - b.nc.MaxPayload()
	if over > int64(len(m.Data)) {
		for name := range original {
			if !strings.HasPrefix(name, "Rowcall-Dead-") && !strings.HasPrefix(name, "Nats-") {
				delete(m.Header, name)
			}
		}
		over = payload(m) - b.nc.MaxPayload()
	}
	over = min(max(over, 0), int64(len(m.Data)))
	m.Data = m.Data[:int64(len(m.Data))-over]
	m.Header[headerDeadCut] = []string{strconv.FormatInt(over, 10)}
}

// payload is what the server compares with its limit.
func payload(m *nats.Msg) int64 { return int64(m.Size() - len(m.Subject) - len(m.Reply)) }

// Dead implements [sinks.CommandBroker]. A ref is a sequence of the stream.
func (b *CommandBroker) Dead(ctx context.Context, queue string) iter.Seq2[sinks.DeadCommand, error] {
	return func(yield func(sinks.DeadCommand, error) bool) {
		fail := func(err error) { yield(sinks.DeadCommand{}, fmt.Errorf("stream %s: %w", DeadStream(queue), err)) }
		opening, cancel := b.bounded(ctx)
		s, err := b.js.Stream(opening, DeadStream(queue))
		cancel()
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			fail(noQueue(queue, err))
			return
		}
		if err != nil {
			fail(err)
			return
		}
		for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
			getting, cancel := b.bounded(ctx)
			m, err := s.GetMsg(getting, seq, natsjs.WithGetMsgSubject(DeadSubject(queue)))
			cancel()
			if errors.Is(err, natsjs.ErrMsgNotFound) {
				return // no other behind it
			}
			if err != nil {
				fail(err)
				return
			}
			if seq = m.Sequence; seq > s.CachedInfo().State.LastSeq {
				return
			}
			if !yield(getDead(strconv.FormatUint(seq, 10), m.Header, m.Data), nil) {
				return
			}
		}
	}
}

func noQueue(queue string, err error) error {
	return fmt.Errorf("there is no queue %s, or none of its commands was ever sent: %w", queue, err)
}

// RemoveDead implements [sinks.CommandBroker].
func (b *CommandBroker) RemoveDead(ctx context.Context, queue, ref string) error {
	none := fmt.Errorf("stream %s, %s: %w", DeadStream(queue), ref, sinks.ErrNoDeadLetter)
	seq, err := strconv.ParseUint(ref, 10, 64)
	if err != nil {
		return none
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	s, err := b.js.Stream(ctx, DeadStream(queue))
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		err = noQueue(queue, err)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", DeadStream(queue), err)
	}
	m, err := s.GetMsg(ctx, seq)
	if errors.Is(err, natsjs.ErrMsgNotFound) || err == nil && m.Subject != DeadSubject(queue) {
		return none
	}
	if err != nil {
		return fmt.Errorf("stream %s, %s: %w", DeadStream(queue), ref, err)
	}
	if err := s.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, natsjs.ErrMsgNotFound) {
		return fmt.Errorf("stream %s, %s: %w", DeadStream(queue), ref, err)
	}
	return nil
}

// Queues implements [sinks.CommandBroker]: the streams with names like a
// queue's.
func (b *CommandBroker) Queues(ctx context.Context) ([]sinks.QueueStatus, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	listing, cancel := b.bounded(ctx)
	defer cancel()
	list := b.js.StreamNames(listing, natsjs.WithStreamListSubject("cmd.>"))
	var queues []string
	for name := range list.Name() {
		if queue, ok := queueOf(name); ok {
			queues = append(queues, queue)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list the queues: %w", err)
	}
	slices.Sort(queues)
	found := make([]sinks.QueueStatus, 0, len(queues))
	for _, queue := range queues {
		status, err := b.queueStatus(ctx, queue)
		if err != nil {
			return nil, fmt.Errorf("queue %s: %w", queue, err)
		}
		found = append(found, status)
	}
	return found, nil
}

func (b *CommandBroker) queueStatus(ctx context.Context, queue string) (sinks.QueueStatus, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	status := sinks.QueueStatus{Queue: queue}
	s, err := b.js.Stream(ctx, CommandStream(queue))
	if err != nil {
		return status, err
	}
	info, err := s.Info(ctx, natsjs.WithSubjectFilter(delayPrefix(queue)+"*"))
	if err != nil {
		return status, err
	}
	for _, n := range info.State.Subjects {
		status.Delayed += n
	}
	if info.State.Msgs > 0 {
		status.Oldest = info.State.FirstTime
	}
	status.Waiting = info.State.Msgs - min(status.Delayed, info.State.Msgs)
	c, err := s.Consumer(ctx, queue)
	switch {
	case err == nil:
		i := c.CachedInfo()
		status.Owner = i.Config.Metadata[ownerKey]
		// What is in the stream is not done. The consumer's own count of what
		// is pending is 0 for a moment after it was made.
		status.Running = uint64(i.NumAckPending)
		status.Waiting -= min(status.Running, status.Waiting)
	case !errors.Is(err, natsjs.ErrConsumerNotFound):
		return status, err
	}
	dead, err := b.js.Stream(ctx, DeadStream(queue))
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		return status, nil
	}
	if err != nil {
		return status, err
	}
	info, err = dead.Info(ctx, natsjs.WithSubjectFilter(DeadSubject(queue)))
	if err != nil {
		return status, err
	}
	status.Dead = info.State.Subjects[DeadSubject(queue)]
	return status, nil
}
