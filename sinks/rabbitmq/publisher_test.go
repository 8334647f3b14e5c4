package rabbitmq_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A topic is an exchange with a queue that gets all of it.
type topic struct {
	server   *rabbitserver.Server
	exchange string
	queue    string
}

func newTopic(t testing.TB, args amqp.Table) *topic {
	t.Helper()
	s := rabbittest.Server(t)
	p := prefix(t, s)
	tp := &topic{server: s, exchange: p + "events", queue: p + "all"}
	t.Cleanup(func() {
		if ch := tp.channel(t); ch != nil {
			_ = ch.ExchangeDelete(tp.exchange, false, false)
		}
	})
	if args == nil {
		args = amqp.Table{"x-queue-type": "quorum"}
	}
	declare(t, s, tp.queue, args)
	return tp
}

func (tp *topic) channel(t testing.TB) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(tp.server.URL())
	if err != nil {
		t.Errorf("connect: %v", err)
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Errorf("channel: %v", err)
		return nil
	}
	return ch
}

// publisher opens one, and binds the queue to its exchange.
func (tp *topic) publisher(t testing.TB, w *wire, o rabbitmq.PublisherOptions) *rabbitmq.Publisher {
	t.Helper()
	o.Exchange = tp.exchange
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	p, err := rabbitmq.NewPublisher(connector(t, tp.server, w), &o)
	if err != nil {
		t.Fatalf("NewPublisher: %v", err)
	}
	if err := p.Open(t.Context()); err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(p.Close)
	if ch := tp.channel(t); ch == nil {
		t.FailNow()
	} else if err := ch.QueueBind(tp.queue, "cdc.#", tp.exchange, false, nil); err != nil {
		t.Fatalf("bind: %v", err)
	}
	return p
}

// drain takes what is in the queue, so many messages at least.
func (tp *topic) drain(t testing.TB) []amqp.Delivery {
	t.Helper()
	ch := tp.channel(t)
	if ch == nil {
		t.FailNow()
	}
	var all []amqp.Delivery
	for {
		m, ok, err := ch.Get(tp.queue, true)
		if err != nil {
			t.Fatalf("get from %s: %v", tp.queue, err)
		}
		if !ok {
			return all
		}
		all = append(all, m)
	}
}

// A want is a message that has to be there.
type want struct{ id, key, body string }

func wants(batches []*listeners.Batch) []want {
	e := sinks.NewEncoder(0)
	var all []want
	for _, b := range batches {
		for i := range sinks.Len(b) {
			f := e.Encode(b, i)
			all = append(all, want{f.ID, f.Address, string(f.Body)})
		}
	}
	return all
}

// inOrder checks that every message is there, and that each comes for the first
// time behind those before it. Repetitions are allowed.
func inOrder(t testing.TB, got []amqp.Delivery, want []want) {
	t.Helper()
	seen := make(map[string]bool)
	next := 0
	for i := range got {
		id := got[i].MessageId
		switch {
		case seen[id]:
		case next == len(want) || id != want[next].id:
			t.Fatalf("message %d is %s, want %d of %d", i, id, next, len(want))
		default:
			if got[i].RoutingKey != want[next].key || string(got[i].Body) != want[next].body {
				t.Errorf("message %s is %s %s, want %s %s", id, got[i].RoutingKey, got[i].Body, want[next].key, want[next].body)
			}
			seen[id] = true
			next++
		}
	}
	if next != len(want) {
		t.Errorf("%d of %d messages arrived", next, len(want))
	}
}

func TestPublisherIsCompleteAndInOrder(t *testing.T) {
	t.Parallel()
	tp := newTopic(t, nil)
	p := tp.publisher(t, new(wire), rabbitmq.PublisherOptions{})
	batches := sinktest.History(mathrand.New(mathrand.NewPCG(1, 2)), 1000)
	if err := sinktest.Feed(t.Context(), p, batches); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	last := batches[len(batches)-1].Position
	if got := p.Stored(); got != last {
		t.Errorf("Stored = %s after Flush, want %s", got, last)
	}
	got, all := tp.drain(t), wants(batches)
	if len(got) != len(all) {
		t.Errorf("%d messages without a fault, want %d", len(got), len(all))
	}
	inOrder(t, got, all)
	// Another program reads them as CloudEvents.
	for i := range got {
		m, err := sinks.Decode(func(name string) string {
			s, _ := got[i].Headers["cloudEvents:"+name].(string)
			return s
		}, got[i].Body)
		if err != nil || m.ID != all[i].id {
			t.Fatalf("Decode(message %d) = %+v, %v; want id %s", i, m, err, all[i].id)
		}
	}
}

// Stored is compared with what the queue holds at that moment, between faults of
// all kinds.
func TestPublisherUnderFaults(t *testing.T) {
	tp := newTopic(t, nil)
	w := new(wire)
	p := tp.publisher(t, w, rabbitmq.PublisherOptions{MaxPending: 50, ConfirmTimeout: time.Second})
	settled := time.NewTimer(5 * time.Second) // a quorum queue survives a crash when it is that old
	<-settled.C
	r := mathrand.New(mathrand.NewPCG(3, 4))
	batches := sinktest.History(r, 4000)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var restart sync.WaitGroup
	for n, begin := 0, 0; begin < len(batches); n, begin = n+1, begin+20 {
		switch part := batches[begin:min(begin+20, len(batches))]; {
		case n == 3:
			if err := tp.server.Kill(); err != nil {
				t.Fatal(err)
			}
			restart.Go(func() {
				if err := tp.server.Resume(ctx); err != nil {
					t.Errorf("restart: %v", err)
				}
			})
			fallthrough
		case n%4 == 1:
			w.lose.Store(1 + r.Int64N(3))
			fallthrough
		default:
			if err := sinktest.Feed(ctx, p, part); err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				w.cut() // with what is on its way
			}
		}
	}
	restart.Wait()
	var got []amqp.Delivery
	stored := p.Stored()
	got = tp.drain(t)
	have := make(map[string]bool)
	for i := range got {
		have[got[i].MessageId] = true
	}
	for _, b := range batches {
		if stored.Compare(b.Position) < 0 {
			break
		}
		for _, one := range wants([]*listeners.Batch{b}) {
			if !have[one.id] {
				t.Fatalf("Stored = %s, and %s is not there", stored, one.id)
			}
		}
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	inOrder(t, append(got, tp.drain(t)...), wants(batches))
	if got := p.Stored(); got != batches[len(batches)-1].Position {
		t.Errorf("Stored = %s after Flush, want the last batch's position", got)
	}
}

func TestPublisherWaitsForAFullQueue(t *testing.T) {
	t.Parallel()
	tp := newTopic(t, amqp.Table{"x-queue-type": "quorum", "x-max-length": int64(10), "x-overflow": "reject-publish"})
	p := tp.publisher(t, new(wire), rabbitmq.PublisherOptions{})
	batches := []*listeners.Batch{sinktest.Transaction(10, 60)}
	flushed := make(chan error, 1)
	go func() { flushed <- errors.Join(sinktest.Feed(t.Context(), p, batches), p.Flush(t.Context())) }()
	var got []amqp.Delivery
	seen := make(map[string]bool)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case err := <-flushed:
			if err != nil {
				t.Fatalf("Flush: %v", err)
			}
			for _, m := range append(got, tp.drain(t)...) {
				seen[m.MessageId] = true
			}
			if len(seen) != 60 || p.Stored() != batches[0].Position {
				t.Errorf("%d of 60 events came through a full queue, Stored = %s; want all, and %s", len(seen), p.Stored(), batches[0].Position)
			}
			return
		case <-poll.C:
			got = append(got, tp.drain(t)...)
		}
	}
}

func TestPublisherEndsWithAnEventThatIsTooLarge(t *testing.T) {
	t.Parallel()
	tp := newTopic(t, nil)
	p := tp.publisher(t, new(wire), rabbitmq.PublisherOptions{})
	small, batch := sinktest.Transaction(10, 3), sinktest.Transaction(20, 1)
	batch.Events[0].After = sinktest.Wide(1, rabbittest.MaxMessageSize)
	err := sinktest.Feed(t.Context(), p, []*listeners.Batch{small, batch})
	if err == nil {
		err = p.Flush(t.Context())
	}
	var e *rabbitmq.MessageTooLargeError
	if !errors.As(err, &e) || e.Limit != rabbittest.MaxMessageSize || e.Size <= e.Limit || e.ID != wants([]*listeners.Batch{batch})[0].id {
		t.Errorf("an event of more than %d bytes = %v, want a MessageTooLargeError", rabbittest.MaxMessageSize, err)
	}
	if got := p.Stored(); got != small.Position {
		t.Errorf("Stored = %s, want %s of what is before it", got, small.Position)
	}
}

func TestPublisherDropsOrWaitsForAQueue(t *testing.T) {
	t.Parallel()
	for _, mandatory := range []bool{false, true} {
		t.Run(fmt.Sprintf("mandatory=%t", mandatory), func(t *testing.T) {
			tp := newTopic(t, nil)
			p := tp.publisher(t, new(wire), rabbitmq.PublisherOptions{Mandatory: mandatory})
			ch := tp.channel(t)
			if err := ch.QueueUnbind(tp.queue, "cdc.#", tp.exchange, nil); err != nil {
				t.Fatal(err)
			}
			// With more than one event OnBatch, too, would wait: the first may be back
			// before the second is sent.
			batch, behind := sinktest.Transaction(10, 1), sinktest.Transaction(20, 5)
			if err := sinktest.Feed(t.Context(), p, []*listeners.Batch{batch}); err != nil {
				t.Fatal(err)
			}
			if !mandatory {
				if err := p.Flush(t.Context()); err != nil || len(tp.drain(t)) != 0 {
					t.Errorf("Flush = %v, want events that no queue is bound for dropped", err)
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if err := p.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !p.Stored().IsZero() {
				t.Errorf("Flush without a queue = %v, Stored = %s; want to wait", err, p.Stored())
			}
			all := make(chan error, 1)
			go func() {
				err := sinktest.Feed(t.Context(), p, []*listeners.Batch{behind})
				if err == nil {
					err = p.Flush(t.Context())
				}
				all <- err
			}()
			if err := ch.QueueBind(tp.queue, "cdc.#", tp.exchange, false, nil); err != nil {
				t.Fatal(err)
			}
			if err := <-all; err != nil {
				t.Fatalf("Feed and Flush: %v", err)
			}
			inOrder(t, tp.drain(t), wants([]*listeners.Batch{batch, behind}))
		})
	}
}

func TestPublisherOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	name := "t" + rand.Text()[:8]
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclare(name, amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ch.ExchangeDelete(name, false, false) }()
	p, err := rabbitmq.NewPublisher(connector(t, s, new(wire)), &rabbitmq.PublisherOptions{Exchange: name})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Open(t.Context()); err == nil || !strings.Contains(err.Error(), name+" is not a durable topic exchange") {
		t.Errorf("Open of a fanout exchange = %v, want an error that says so", err)
	}
}
