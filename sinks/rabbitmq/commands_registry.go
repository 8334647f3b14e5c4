package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// A registry says what queues there are: AMQP cannot list any, nor keep an
// owner with them. It is one message of a quorum queue, read and replaced under
// a lock. Who dies between storing the new one and removing the old leaves
// both, and then they are one again: it only ever grows, and the first owner
// stays.
type registry struct {
	Queues map[string]*registered `json:"queues"`
}

type registered struct {
	Owner string `json:"owner,omitempty"`
}

func (b *CommandBroker) registryQueue() string { return b.opts.Prefix + "rowcall.commands" }

func (r *registry) queue(name string) *registered {
	if r.Queues == nil {
		r.Queues = make(map[string]*registered)
	}
	q := r.Queues[name]
	if q == nil {
		q = new(registered)
		r.Queues[name] = q
	}
	return q
}

// merge adds what a later message says.
func (r *registry) merge(later *registry) {
	for _, name := range slices.Sorted(maps.Keys(later.Queues)) {
		if later.Queues[name] == nil {
			continue
		}
		q := r.queue(name)
		if q.Owner == "" {
			q.Owner = later.Queues[name].Owner
		}
	}
}

// registry reads the registry. Update, if there is one, may change it and
// returns whether it did; that is stored before registry returns.
func (b *CommandBroker) registry(ctx context.Context, update func(*registry) bool) (*registry, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var found *registry
	name := b.registryQueue()
	err := b.connector.locked(ctx, name+".lock", func(ctx context.Context, ch *amqp.Channel) error {
		r, err := b.readRegistry(ctx, ch, update)
		if err == nil {
			found = r
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("queue %s: %w", name, err)
	}
	return found, nil
}

func (b *CommandBroker) readRegistry(ctx context.Context, ch *amqp.Channel, update func(*registry) bool) (*registry, error) {
	name := b.registryQueue()
	fresh := false
	if _, err := b.count(ctx, name); code(err) == amqp.NotFound {
		switch {
		case update == nil:
			return new(registry), nil
		case b.opts.MustExist:
			return nil, errNoRegistry
		}
		if _, err := b.declare(ctx, name, amqp.Table{"x-delivery-limit": int64(endless)}); err != nil {
			return nil, err
		}
		fresh = true
	} else if err != nil {
		return nil, err
	}
	r, messages, last, worn := new(registry), 0, uint64(0), false
	// One whose reader has just died may not be back yet.
	for try := 0; messages == 0 && try < 10; try++ {
		if try > 0 && fresh {
			break
		}
		if try > 0 {
			pause(ctx, 20*time.Millisecond)
		}
		for {
			m, ok, err := ch.Get(name, false)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			one := new(registry)
			if err := json.Unmarshal(m.Body, one); err != nil {
				return nil, fmt.Errorf("a message that is not this package's: %w; remove it", err)
			}
			r.merge(one)
			messages, last = messages+1, m.DeliveryTag
			worn = worn || number(m.Headers, headerDeliveries) >= maxLooks
		}
	}
	changed := update != nil && (update(r) || messages > 1)
	if !changed && !worn {
		if messages > 0 {
			if err := ch.Nack(last, true, true); err != nil {
				return nil, err
			}
		}
		return r, syncChannel(ch)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	store := outgoing{key: name, mandatory: true, message: amqp.Publishing{Body: text, ContentType: "application/json", DeliveryMode: amqp.Persistent}}
	if err := b.out.one(ctx, store); err != nil {
		if changed {
			return nil, fmt.Errorf("store it: %w", err) // what was read goes back with the channel
		}
		if err := ch.Nack(last, true, true); err != nil { // the next look tries again
			return nil, err
		}
		return r, syncChannel(ch)
	}
	if messages > 0 {
		if err := ch.Ack(last, true); err != nil {
			return nil, err
		}
	}
	return r, syncChannel(ch)
}

// claim writes the owner of a queue down, unless it has one already.
func (b *CommandBroker) claim(ctx context.Context, queue, owner string) error {
	r, err := b.registry(ctx, func(r *registry) bool {
		q := r.queue(queue)
		if q.Owner != "" {
			return false
		}
		q.Owner = owner
		return true
	})
	if err != nil {
		return explain(queue, b.registryQueue(), err)
	}
	if has := r.queue(queue).Owner; has != owner {
		return &sinks.OwnerError{Queue: queue, Owner: has, Want: owner}
	}
	return nil
}

// count returns how many messages wait in a queue.
func (b *CommandBroker) count(ctx context.Context, name string) (uint64, error) {
	var n uint64
	err := b.connector.withChannel(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		n = uint64(max(0, q.Messages))
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Queues implements [sinks.CommandBroker]: the queues that were opened with
// this prefix and are still there. AMQP tells what waits in a queue, not what is
// with a worker nor since when: Running counts what is in the hands of this
// broker's own consumers, and Oldest is not set. What waits for another attempt
// counts as Delayed.
func (b *CommandBroker) Queues(ctx context.Context) ([]sinks.QueueStatus, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	r, err := b.registry(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list the queues: %w", err)
	}
	found := make([]sinks.QueueStatus, 0, len(r.Queues))
	for _, queue := range slices.Sorted(maps.Keys(r.Queues)) {
		status, err := b.status(ctx, queue, r.Queues[queue])
		if code(err) == amqp.NotFound {
			continue // somebody deleted it
		}
		if err != nil {
			return nil, fmt.Errorf("queue %s: %w", queue, err)
		}
		found = append(found, status)
	}
	return found, nil
}

// status looks at the queues for delays first: what leaves them while it looks
// is counted where it goes.
func (b *CommandBroker) status(ctx context.Context, queue string, r *registered) (sinks.QueueStatus, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	status := sinks.QueueStatus{Queue: queue, Owner: r.Owner}
	for step := range waits {
		n, err := b.count(ctx, b.waitQueue(queue, step))
		if err != nil {
			return status, err
		}
		status.Delayed += n
	}
	var err error
	if status.Waiting, err = b.count(ctx, b.Queue(queue)); err != nil {
		return status, err
	}
	status.Running = b.running(queue)
	if status.Dead, err = b.count(ctx, b.DeadQueue(queue)); err != nil {
		return status, err
	}
	return status, nil
}

// errNoRegistry is the registry's error with MustExist.
var errNoRegistry = errors.New("there is no registry")
