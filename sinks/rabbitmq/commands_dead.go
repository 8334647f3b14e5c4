package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// Dead implements [sinks.CommandBroker]. It takes all letters out of the queue
// at once, into memory, and puts them back before it goes through them, under a
// lock: a queue shows nothing but by handing it out. A letter that
// is there twice, since its worker died while it buried it, is one.
func (b *CommandBroker) Dead(ctx context.Context, queue string) iter.Seq2[sinks.DeadCommand, error] {
	return func(yield func(sinks.DeadCommand, error) bool) {
		var letters []sinks.DeadCommand
		err := b.visitDead(ctx, queue, func(_ context.Context, all []stored, _ func([]stored) error) error {
			for _, l := range all {
				letters = append(letters, l.dead(b.Queue(queue)))
			}
			return nil
		})
		if err != nil {
			yield(sinks.DeadCommand{}, err)
			return
		}
		seen := make(map[string]bool, len(letters))
		for _, d := range letters {
			if seen[d.Ref] {
				continue
			}
			seen[d.Ref] = true
			if !yield(d, nil) {
				return
			}
		}
	}
}

// RemoveDead implements [sinks.CommandBroker].
func (b *CommandBroker) RemoveDead(ctx context.Context, queue, ref string) error {
	found := false
	err := b.visitDead(ctx, queue, func(_ context.Context, all []stored, remove func([]stored) error) error {
		mine := slices.DeleteFunc(slices.Clone(all), func(l stored) bool { return l.ref() != ref })
		found = len(mine) > 0
		return remove(mine)
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("queue %s, %s: %w", b.DeadQueue(queue), ref, sinks.ErrNoDeadLetter)
	}
	return nil
}

// sweepChunk is how many letters are taken at once, and so how many are at most in
// two places if that is interrupted.
const sweepChunk = 100

// SweepDead implements [sinks.DeadSweeper]. Others who look at the dead letters wait for it.
func (b *CommandBroker) SweepDead(ctx context.Context, queue string, pick func(*sinks.DeadCommand) bool, take func(context.Context, []sinks.DeadCommand) (int, error)) error {
	// A visit may outlive the call, whose context has ended.
	var mu sync.Mutex
	over := false
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	during := func(do func()) bool {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			do()
		}
		return !over
	}
	return b.visitDead(ctx, queue, func(ctx context.Context, all []stored, remove func([]stored) error) error {
		var picked []sinks.DeadCommand
		places := make(map[string][]stored) // one that is there twice is one
		if !during(func() {
			for _, l := range all {
				d := l.dead(b.Queue(queue))
				if _, again := places[d.Ref]; !again && !pick(&d) {
					continue
				} else if !again {
					picked = append(picked, d)
				}
				places[d.Ref] = append(places[d.Ref], l)
			}
		}) {
			return context.Cause(ctx)
		}
		for some := range slices.Chunk(picked, sweepChunk) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var n int
			var err error
			if !during(func() { n, err = take(ctx, some) }) {
				return context.Cause(ctx)
			}
			var gone []stored
			for i := range some[:n] {
				gone = append(gone, places[some[i].Ref]...)
			}
			if err := errors.Join(err, remove(gone)); err != nil {
				return err
			}
		}
		return nil
	})
}

// visitDead shows all letters, oldest first, to a function that may have some
// removed. The rest goes back.
func (b *CommandBroker) visitDead(ctx context.Context, queue string, visit func(ctx context.Context, all []stored, remove func([]stored) error) error) error {
	if err := b.open(); err != nil {
		return err
	}
	name := b.DeadQueue(queue)
	// A queue with many letters takes longer than one request may.
	err := b.connector.locked(ctx, name+".lock", func(ctx context.Context, ch *amqp.Channel) error {
		t := taken{
			name: name, queue: queue, channels: []*amqp.Channel{ch}, from: make(map[*amqp.Delivery]*amqp.Channel),
			open: func() (*amqp.Channel, error) { return b.connector.channel(ctx, &b.connector.other) },
		}
		defer t.close()
		for more := true; more; {
			if ctx.Err() != nil {
				return context.Cause(ctx) // they go back with the channels
			}
			var err error
			if more, err = t.get(); err != nil {
				return err
			}
		}
		// A server puts back one by one what it was given back at once, in an
		// order of its own if it is more than some 30.
		died := make(map[*amqp.Delivery]time.Time, len(t.letters))
		for _, l := range t.letters {
			died[l.Delivery] = l.dead("").Dead.Time
		}
		slices.SortStableFunc(t.letters, func(x, y stored) int { return died[x.Delivery].Compare(died[y.Delivery]) })
		return errors.Join(visit(ctx, slices.Clone(t.letters), t.remove), b.returnDead(ctx, &t))
	})
	switch {
	case code(err) == amqp.NotFound:
		return fmt.Errorf("there is no queue %s, or it was never opened: queue %s: %w", queue, name, err)
	case err != nil:
		return fmt.Errorf("queue %s: %w", name, err)
	}
	return nil
}

// A taken has the letters that are with channels.
type taken struct {
	name, queue string
	letters     []stored
	open        func() (*amqp.Channel, error)
	channels    []*amqp.Channel // the first one is not ours
	from        map[*amqp.Delivery]*amqp.Channel
	last        int // letters that the last channel was given
}

// inOrder is how many messages of a channel that ends any server puts back in an
// order that lasts. With more, a queue of RabbitMQ 3.10 has them in another one when
// the server has been restarted and works through its log again, and
// acknowledgements behind that hit other messages.
const inOrder = 32

// channelLetters is how many letters a channel takes.
const channelLetters = inOrder - 4

// get takes another letter. A count would be of no use: the server counts what
// somebody has just put back a moment later than it hands it out.
func (t *taken) get() (ok bool, err error) {
	if t.last == channelLetters {
		switch ch, err := t.open(); {
		case err == nil:
			t.channels, t.last = append(t.channels, ch), 0
		case !errors.Is(err, amqp.ErrChannelMax):
			return false, err
		}
	}
	ok, err = t.getOn(t.channels[len(t.channels)-1])
	if ok && t.last < channelLetters {
		t.last++
	}
	return ok, err
}

func (t *taken) getOn(ch *amqp.Channel) (ok bool, err error) {
	m, ok, err := ch.Get(t.name, false)
	if ok {
		t.letters = append(t.letters, stored{queue: t.queue, Delivery: &m})
		t.from[&m] = ch
	}
	return ok, err
}

// close ends the channels, whose letters go back.
func (t *taken) close() {
	for _, ch := range t.channels[1:] {
		ch.Close()
	}
}

// removeChunk is less than the acknowledgements that a channel of the server has
// on their way to a quorum queue before it holds others back
// (quorum_commands_soft_limit, 32). Those it forgets when it is closed.
const removeChunk = 16

// remove returns when the queue has forgotten letters. To take another letter
// is what a queue answers behind the acknowledgements on the same channel.
func (t *taken) remove(some []stored) error {
	removed := make(map[*amqp.Delivery]bool, len(some))
	for chunk := range slices.Chunk(some, removeChunk) {
		behind := make(map[*amqp.Channel]bool)
		for _, l := range chunk {
			if err := l.Ack(false); err != nil {
				return err
			}
			removed[l.Delivery] = true
			behind[t.from[l.Delivery]] = true
		}
		for ch := range behind {
			if _, err := t.getOn(ch); err != nil {
				return err
			}
		}
	}
	t.letters = slices.DeleteFunc(t.letters, func(l stored) bool { return removed[l.Delivery] })
	return nil
}

func (b *CommandBroker) returnDead(ctx context.Context, t *taken) error {
	if slices.ContainsFunc(t.letters, func(l stored) bool { return number(l.Headers, headerDeliveries) >= maxLooks }) {
		kept := slices.Clone(t.letters)
		err := b.renewDead(ctx, t.queue, kept)
		if err == nil {
			err = t.remove(kept) // which may take what is new
		}
		if err != nil {
			b.opts.Logger.WarnContext(ctx, "dead letters cannot be stored anew, and a policy with a delivery limit may drop them", "queue", t.name, "error", err)
		}
	}
	if len(t.letters) == 0 {
		return nil
	}
	// Those that were acknowledged are not among them any more.
	for _, ch := range t.channels { // one after the other, which keeps their order
		if err := ch.Nack(0, true, true); err != nil {
			return err
		}
		if err := syncChannel(ch); err != nil {
			return err
		}
	}
	return nil
}

// renewDead stores letters anew, in their order, so that the server counts from 0
// again: a policy may limit deliveries although the queue does not. Who dies before the
// old ones are acknowledged leaves each twice, which counts as one.
func (b *CommandBroker) renewDead(ctx context.Context, queue string, letters []stored) error {
	seen := make(map[string]bool, len(letters))
	var messages []outgoing
	for _, l := range letters {
		if seen[l.ref()] {
			continue
		}
		seen[l.ref()] = true
		m := l.again()
		if text(m.Headers, headerDeadReason) == "" { // the server's, which says why in what again leaves out
			d := l.dead(b.Queue(queue))
			putDead(&m, &d.Dead, d.Origin, d.Envelope.ID)
		}
		messages = append(messages, outgoing{key: b.DeadQueue(queue), mandatory: true, message: m})
	}
	for some := range slices.Chunk(messages, 100) {
		if err := errors.Join(b.out.publish(ctx, some)...); err != nil {
			return err
		}
	}
	return nil
}
