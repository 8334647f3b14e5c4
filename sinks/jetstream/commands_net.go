package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// netEvery is how often the safety net looks besides being told.
const netEvery = 30 * time.Second

// netAgain is when it looks again after it could not, or saw a server that begins.
const netAgain = 2 * time.Second

// fallenFor is how long a message has to lie behind the consumer's place: one that
// was just acknowledged may do so for a moment, and the worker that knows of it
// comes first.
const fallenFor = 10 * time.Second

// catchFallen looks after commands that stay in the stream although nobody gets
// them any more. The server has given some up: delivered more often than any
// worker would try, to workers that died before they could bury it. It says so in
// an advisory, which the queue's stream of dead letters keeps, and they become
// dead letters. Others lie behind the consumer's place without an advisory:
// those were acknowledged while the server stopped, or the advisory was missed.
func (c *commandConsumer) catchFallen(ctx context.Context) {
	told := make(chan struct{}, 1)
	sub, err := c.broker.nc.SubscribeSync(advisorySubject(c.queue))
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		c.wg.Go(func() {
			for {
				if _, err := sub.NextMsgWithContext(ctx); err != nil {
					return
				}
				select {
				case told <- struct{}{}:
				default:
				}
			}
		})
	}
	back := c.broker.nc.StatusChanged(nats.CONNECTED)
	defer c.broker.nc.RemoveStatusListener(back)
	behind := make(map[uint64]time.Time)
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		soon := false
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-back: // a server that has just started may not know it all yet
			soon = true
		case <-next.C:
		}
		err := c.readAdvisories(ctx)
		if err == nil { // or what is given up would not be told from what was left behind
			err = c.lookBehind(ctx, behind)
		}
		if err != nil && ctx.Err() == nil {
			c.broker.opts.Logger.DebugContext(ctx, "commands given up by the server cannot be looked for", "queue", c.queue, "error", err)
			soon = true
		}
		switch {
		case soon:
			next.Reset(netAgain)
		case len(behind) > 0:
			next.Reset(fallenFor)
		default:
			next.Reset(netEvery)
		}
	}
}

// readAdvisories goes through the advisories that are stored, and removes them.
// Several workers may do it at the same time: what they do is the same.
func (c *commandConsumer) readAdvisories(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, netEvery)
	defer cancel()
	dead, err := c.stream(ctx, DeadStream(c.queue))
	if err != nil {
		return err
	}
	subject := advisorySubject(c.queue)
	var faults []error
	for next := uint64(1); ; {
		m, err := c.get(ctx, dead, next, natsjs.WithGetMsgSubject(subject))
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			return errors.Join(faults...)
		}
		if err != nil {
			return errors.Join(append(faults, err)...)
		}
		next = m.Sequence + 1
		var advisory struct {
			Stream     string `json:"stream"`
			StreamSeq  uint64 `json:"stream_seq"`
			Deliveries int    `json:"deliveries"`
		}
		if err := json.Unmarshal(m.Data, &advisory); err == nil && advisory.Stream == CommandStream(c.queue) {
			if err := c.buryFallen(ctx, advisory.StreamSeq, advisory.Deliveries); err != nil {
				faults = append(faults, err) // the others do not wait for it
				continue
			}
		}
		if err := c.remove(ctx, dead, m.Sequence); err != nil {
			return errors.Join(append(faults, err)...)
		}
	}
}

// lookBehind finds what is in the stream although the consumer is done with
// everything up to there. Seen has what was found there before.
func (c *commandConsumer) lookBehind(ctx context.Context, seen map[uint64]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, netEvery)
	defer cancel()
	floor, err := c.floor(ctx)
	if err != nil {
		return err
	}
	stream, err := c.stream(ctx, CommandStream(c.queue))
	if err != nil {
		return err
	}
	first := stream.CachedInfo().State.FirstSeq
	found := make(map[uint64]bool)
	var faults []error
	for seq := first; seq <= floor; seq++ {
		m, err := c.get(ctx, stream, seq, natsjs.WithGetMsgSubject(CommandSubject(c.queue, ">")))
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if seq = m.Sequence; seq > floor {
			break
		}
		found[seq] = true
		since, ok := seen[seq]
		if !ok {
			since = time.Now()
			seen[seq] = since
		}
		if !c.settled.has(seq, m.Time) && time.Since(since) < fallenFor {
			continue
		}
		if err := c.raise(ctx, stream, m); err != nil {
			faults = append(faults, err) // the others do not wait for it
			continue
		}
		delete(seen, seq)
	}
	maps.DeleteFunc(seen, func(seq uint64, _ time.Time) bool { return !found[seq] })
	return errors.Join(faults...)
}

// raise takes what lies behind the consumer's place out of the stream. If it is
// not known to be done it goes to the end of the queue: it is carried out again
// rather than never.
func (c *commandConsumer) raise(ctx context.Context, stream natsjs.Stream, m *natsjs.RawStreamMsg) error {
	origin := fmt.Sprintf("%s/%d", CommandStream(c.queue), m.Sequence)
	env, _ := getEnvelope(m.Subject, m.Header, m.Data, origin)
	done, err := c.isDone(ctx, m, env.ID)
	if err != nil {
		return err
	}
	if !done {
		again := nats.NewMsg(m.Subject)
		again.Data = m.Data
		copyHeader(again.Header, m.Header)
		again.Header[attributePrefix+"id"] = []string{sinks.EscapeHeader(env.ID)}
		again.Header[natsjs.MsgIDHeader] = []string{"again " + stored(origin, m.Time)} // several workers make one
		again.Header[natsjs.ExpectedStreamHeader] = []string{CommandStream(c.queue)}
		publishing, cancel := c.broker.bounded(ctx)
		_, err := c.broker.js.PublishMsg(publishing, again, natsjs.WithRetryAttempts(0))
		cancel()
		if err != nil {
			return fmt.Errorf("stream %s: %w", CommandStream(c.queue), err)
		}
	}
	c.broker.opts.Logger.WarnContext(ctx, "a command was left behind by the server", "queue", c.queue, "command", env.Name, "id", env.ID, "done", done)
	return c.remove(ctx, stream, m.Sequence)
}

func (c *commandConsumer) isDone(ctx context.Context, m *natsjs.RawStreamMsg, id string) (bool, error) {
	if c.settled.has(m.Sequence, m.Time) {
		return true, nil
	}
	if c.opts.Done == nil {
		return false, nil
	}
	ctx, cancel := c.broker.bounded(ctx) // a handler that runs may keep it waiting
	defer cancel()
	return c.opts.Done(ctx, id)
}

// What follows asks the server, and waits no longer than for any answer: one that
// begins does not answer all that it is asked.

func (c *commandConsumer) stream(ctx context.Context, name string) (natsjs.Stream, error) {
	ctx, cancel := c.broker.bounded(ctx)
	defer cancel()
	return c.broker.js.Stream(ctx, name)
}

// floor is the sequence up to which the consumer is done.
func (c *commandConsumer) floor(ctx context.Context) (uint64, error) {
	ctx, cancel := c.broker.bounded(ctx)
	defer cancel()
	consumer, err := c.broker.js.Consumer(ctx, CommandStream(c.queue), c.queue)
	if err != nil {
		return 0, err
	}
	return consumer.CachedInfo().AckFloor.Stream, nil
}

func (c *commandConsumer) get(ctx context.Context, stream natsjs.Stream, seq uint64, opts ...natsjs.GetMsgOpt) (*natsjs.RawStreamMsg, error) {
	ctx, cancel := c.broker.bounded(ctx)
	defer cancel()
	return stream.GetMsg(ctx, seq, opts...)
}

func (c *commandConsumer) remove(ctx context.Context, stream natsjs.Stream, seq uint64) error {
	ctx, cancel := c.broker.bounded(ctx)
	defer cancel()
	if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, natsjs.ErrMsgNotFound) {
		return err
	}
	return nil
}

func (c *commandConsumer) buryFallen(ctx context.Context, seq uint64, deliveries int) error {
	stream, err := c.stream(ctx, CommandStream(c.queue))
	if err != nil {
		return err
	}
	m, err := c.get(ctx, stream, seq)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return nil // somebody finished it after all
	}
	if err != nil {
		return err
	}
	origin := fmt.Sprintf("%s/%d", CommandStream(c.queue), seq)
	env, _ := getEnvelope(m.Subject, m.Header, m.Data, origin)
	done, err := c.isDone(ctx, m, env.ID)
	if err != nil {
		return err
	}
	if done {
		return c.remove(ctx, stream, seq)
	}
	letter := sinks.DeadLetter{
		Reason: sinks.DeadUndeliverable, Attempts: deliveries, Worker: "safety net", Time: time.Now(),
		Error: fmt.Sprintf("delivered %d times, and no worker lived to say what became of it", deliveries),
	}
	err = c.broker.bury(ctx, c.queue, &buried{
		letter: letter, subject: m.Subject, header: m.Header, body: m.Data, id: env.ID, origin: origin, stored: m.Time,
	})
	if err != nil {
		return err
	}
	c.broker.opts.Logger.ErrorContext(ctx, "a command was given up by the server and became a dead letter",
		"queue", c.queue, "command", env.Name, "id", env.ID, "deliveries", deliveries)
	return c.remove(ctx, stream, seq)
}
