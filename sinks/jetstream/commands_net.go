package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// netEvery is how often the safety net looks besides being told.
const netEvery = 30 * time.Second

// fallenFor is how long a message has to lie behind the consumer's place: one that
// was just acknowledged may do so for a moment.
const fallenFor = 10 * time.Second

// catchFallen makes dead letters of commands that the server has given up:
// delivered more often than any worker would try, to workers that died before
// they could bury it. Such a message stays in the stream, and nobody
// gets it any more. The server says so in an advisory, which the queue's stream
// of dead letters keeps; in case that one is missed, what lies behind the
// consumer's place is looked at, too.
func (c *commandConsumer) catchFallen(ctx context.Context) {
	ticker := time.NewTicker(netEvery)
	defer ticker.Stop()
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
	behind := make(map[uint64]time.Time)
	for {
		for _, look := range []func() error{
			func() error { return c.readAdvisories(ctx) },
			func() error { return c.lookBehind(ctx, behind) },
		} {
			if err := look(); err != nil && ctx.Err() == nil {
				c.broker.opts.Logger.DebugContext(ctx, "commands given up by the server cannot be looked for", "queue", c.queue, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-ticker.C:
		}
	}
}

// readAdvisories goes through the advisories that are stored, and removes them.
// Several workers may do it at the same time: what they do is the same.
func (c *commandConsumer) readAdvisories(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, netEvery)
	defer cancel()
	dead, err := c.broker.js.Stream(ctx, DeadStream(c.queue))
	if err != nil {
		return err
	}
	subject := advisorySubject(c.queue)
	var faults []error
	for next := uint64(1); ; {
		m, err := dead.GetMsg(ctx, next, natsjs.WithGetMsgSubject(subject))
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
		if err := dead.DeleteMsg(ctx, m.Sequence); err != nil && !errors.Is(err, natsjs.ErrMsgNotFound) {
			return errors.Join(append(faults, err)...)
		}
	}
}

// lookBehind buries what is in the stream although the consumer is done with
// everything up to there. Seen has what was found there before.
func (c *commandConsumer) lookBehind(ctx context.Context, seen map[uint64]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, netEvery)
	defer cancel()
	consumer, err := c.broker.js.Consumer(ctx, CommandStream(c.queue), c.queue)
	if err != nil {
		return err
	}
	floor := consumer.CachedInfo().AckFloor.Stream
	maps.DeleteFunc(seen, func(_ uint64, since time.Time) bool { return time.Since(since) > 10*netEvery })
	stream, err := c.broker.js.Stream(ctx, CommandStream(c.queue))
	if err != nil {
		return err
	}
	for seq := stream.CachedInfo().State.FirstSeq; seq <= floor; seq++ {
		m, err := stream.GetMsg(ctx, seq, natsjs.WithGetMsgSubject(CommandSubject(c.queue, ">")))
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if seq = m.Sequence; seq > floor {
			return nil
		}
		if since, ok := seen[seq]; !ok || time.Since(since) < fallenFor {
			if !ok {
				seen[seq] = time.Now()
			}
			continue
		}
		delete(seen, seq)
		if err := c.buryFallen(ctx, seq, c.opts.MaxAttempts+spareDeliveries); err != nil {
			return err
		}
	}
	return nil
}

func (c *commandConsumer) buryFallen(ctx context.Context, seq uint64, deliveries int) error {
	stream, err := c.broker.js.Stream(ctx, CommandStream(c.queue))
	if err != nil {
		return err
	}
	m, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return nil // somebody finished it after all
	}
	if err != nil {
		return err
	}
	origin := fmt.Sprintf("%s/%d", CommandStream(c.queue), seq)
	env, _ := getEnvelope(m.Subject, m.Header, m.Data, origin)
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
	if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, natsjs.ErrMsgNotFound) {
		return err
	}
	return nil
}
