package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// A rig is a broker of commands with what tests do behind its back.
type rig struct {
	broker   *rabbitmq.CommandBroker
	commands *sinks.Commands
	channel  *amqp.Channel
	wire     *wire
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := rabbittest.Server(t)
	return newRigOn(t, s, prefix(t, s))
}

func newRigOn(t *testing.T, s *rabbitserver.Server, prefix string) *rig {
	t.Helper()
	w := new(wire)
	b, err := rabbitmq.NewCommandBroker(connector(t, s, w), &rabbitmq.CommandOptions{Prefix: prefix, ConfirmTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c, err := sinks.NewCommands(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Open(t.Context(), "fleet"); err != nil {
		t.Fatalf("Open: %v", err)
	}
	return &rig{broker: b, commands: c, channel: confirmedChannel(t, s), wire: w}
}

// confirmedChannel returns a channel with confirmations, behind the back of what
// is tested.
func confirmedChannel(t *testing.T, s *rabbitserver.Server) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

func (r *rig) publish(t *testing.T, queue string, m amqp.Publishing) {
	t.Helper()
	w, err := r.channel.PublishWithDeferredConfirm("", queue, true, false, m)
	if err != nil || !w.Wait() {
		t.Fatalf("publish to %s: not confirmed (%v)", queue, err)
	}
}

func (r *rig) letters(t *testing.T) []sinks.DeadCommand {
	t.Helper()
	var all []sinks.DeadCommand
	for d, err := range r.commands.Dead(t.Context(), "fleet") {
		if err != nil {
			t.Fatalf("Dead: %v", err)
		}
		all = append(all, d)
	}
	return all
}

func TestDeadLettersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 30 {
		r.publish(t, r.broker.DeadQueue("fleet"), amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: fmt.Sprintf("m%02d", i), Type: "recall", Headers: amqp.Table{"Rowcall-Dead-Reason": "attempts"},
		})
	}
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("m%02d", i))
	}
	for _, gone := range []string{"", "m00", "m17", "m29", "m05"} {
		if gone != "" {
			if err := r.commands.DiscardDead(t.Context(), "fleet", gone); err != nil {
				t.Fatalf("DiscardDead(%s): %v", gone, err)
			}
			want = slices.DeleteFunc(want, func(ref string) bool { return ref == gone })
		}
		for range 2 {
			var got []string
			for _, d := range r.letters(t) {
				got = append(got, d.Ref)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("Dead after %q went = %v, want %v", gone, got, want)
			}
		}
	}
}

// A letter that is there twice, since its worker died while it buried it, is one.
func TestDeadLetterThatWasBuriedTwiceIsOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 2 {
		r.publish(t, r.broker.DeadQueue("fleet"), amqp.Publishing{MessageId: "twice", Type: "recall", Headers: amqp.Table{"Rowcall-Dead-Reason": "attempts"}})
	}
	if got := r.letters(t); len(got) != 1 || got[0].Ref != "twice" {
		t.Errorf("Dead = %+v, want one letter", got)
	}
	if err := r.commands.DiscardDead(t.Context(), "fleet", "twice"); err != nil {
		t.Fatal(err)
	}
	if got := r.letters(t); len(got) != 0 {
		t.Errorf("Dead after DiscardDead = %+v, want none", got)
	}
}

// What the server gives up, since workers die before they can say anything, is
// a dead letter without one of ours having seen it.
func TestServerGivesUpWhatKillsWorkers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.commands.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "recall", ID: "poison"}); err != nil {
		t.Fatal(err)
	}
	deliveries, err := r.channel.Consume(r.broker.Queue("fleet"), "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for n := 0; ; {
		select {
		case m := <-deliveries:
			n++
			if err := m.Reject(true); err != nil {
				t.Fatal(err)
			}
			continue
		case <-deadline.C:
			t.Fatalf("the server has not given it up after %d deliveries", n)
		case <-poll.C:
		}
		if n <= 1000 {
			continue
		}
		if got := r.letters(t); len(got) == 1 {
			d := got[0]
			if d.Dead.Reason != sinks.DeadUndeliverable || d.Envelope.ID != "poison" || d.Envelope.Queue != "fleet" || d.Origin == "" || d.Ref == "" || d.Dead.Time.IsZero() {
				t.Errorf("dead letter %+v, want poison, undeliverable, with ref, origin and time", d)
			}
			return
		}
	}
}

// Attempts are ours to count, whatever the server's limit: 40 of them, where
// RabbitMQ 4 would give up after 20 deliveries.
func TestAttemptsDoNotDependOnTheServersLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.commands.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "recall", ID: "a"}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	last := 0
	err := r.commands.Serve(ctx, "fleet", func(_ context.Context, got *sinks.Received) error {
		if last++; got.Attempt != last {
			t.Errorf("attempt %d has the number %d", last, got.Attempt)
		}
		if last == 40 {
			stop()
			return nil
		}
		return errors.New("not yet")
	}, &sinks.ServePolicy{MaxAttempts: 50, FirstDelay: time.Millisecond, MaxDelay: time.Millisecond})
	if err != nil || last != 40 {
		t.Errorf("Serve = %v after %d attempts, want 40", err, last)
	}
}

// Any client can send a command: it says a name, and that is all.
func TestCommandOfAnotherClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	queue := r.broker.Queue("fleet")
	r.publish(t, queue, amqp.Publishing{Type: "recall", Body: []byte("7"), Headers: amqp.Table{"trace": int32(9)}})
	r.publish(t, queue, amqp.Publishing{Body: []byte("no name")})
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- r.commands.Serve(ctx, "fleet", func(_ context.Context, got *sinks.Received) error {
			if got.Name != "recall" || string(got.Body) != "7" || got.ID == "" || got.Headers["trace"] != "9" || got.Attempt != 1 {
				t.Errorf("received %+v, want recall with its body, its header and some id", got)
			}
			return nil
		}, nil)
	}()
	var found []sinks.DeadCommand
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for s := r.commands.Stats(); (s.Done != 1 || len(found) != 1) && ctx.Err() == nil; s = r.commands.Stats() {
		<-poll.C
		found = r.letters(t)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if s := r.commands.Stats(); s.Done != 1 || len(found) != 1 || found[0].Dead.Reason != sinks.DeadUndecodable || string(found[0].Envelope.Body) != "no name" {
		t.Errorf("Stats = %+v, dead letters %+v; want one command done, and what has no name undecodable", s, found)
	}
}

// A goroutine that ends without a word, as runtime.Goexit does, leaves its
// command to the lease.
func TestCommandOfASilentWorkerComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	consumer, err := r.broker.Consume(t.Context(), "fleet", sinks.ConsumeOptions{Owner: "fleet", Lease: 5 * time.Second, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	if err := r.commands.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "recall", ID: "a"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	first, err := consumer.Receive(ctx, 1)
	if err != nil || len(first) != 1 || first[0].Attempt() != 1 {
		t.Fatalf("Receive = %v, %v; want the command as attempt 1", first, err)
	}
	for attempt := 2; ; attempt++ {
		next, err := consumer.Receive(ctx, 1)
		if err != nil || len(next) != 1 || next[0].Attempt() != attempt {
			t.Fatalf("Receive after a lease without a sign = %v, %v; want the command as attempt %d", next, err, attempt)
		}
		if err := first[0].Ack(ctx); !errors.Is(err, sinks.ErrLeaseLost) {
			t.Errorf("Ack of the first delivery = %v, want ErrLeaseLost", err)
		}
		err = next[0].Ack(ctx)
		if err == nil {
			return
		}
		if !errors.Is(err, sinks.ErrLeaseLost) || attempt == 6 { // a machine that stands still for a lease loses it
			t.Fatalf("Ack of delivery %d = %v", attempt, err)
		}
	}
}

func TestMustExist(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	b, err := rabbitmq.NewCommandBroker(connector(t, s, new(wire)), &rabbitmq.CommandOptions{Prefix: prefix(t, s), MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var e *sinks.QueueError
	if err := b.OpenQueue(t.Context(), "fleet"); !errors.As(err, &e) || !strings.Contains(e.Reason, "there is no queue") {
		t.Errorf("OpenQueue of a queue that does not exist = %v, want a QueueError that says so", err)
	}
	if all, err := b.Queues(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("Queues = %v, %v; want none", all, err)
	}
}

func TestConnectorNeverShowsThePassword(t *testing.T) {
	for name, serverURL := range map[string]string{
		"scheme": "http://u:secret@host", "port": "amqp://u:secret@host:x", "control": "amqp://u:secret@ho\nst", "none": "secret",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := rabbitmq.NewConnector(serverURL, nil); err == nil || strings.Contains(err.Error(), "secret") && serverURL != "secret" {
				t.Errorf("NewConnector = %v, want an error without the password", err)
			}
		})
	}
	c, err := rabbitmq.NewConnector("amqp://u:secret@127.0.0.1:1/shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var e *rabbitmq.UnreachableError
	if err := c.Ping(t.Context()); !errors.As(err, &e) || e.Server != "127.0.0.1:1/shop" || strings.Contains(err.Error(), "secret") {
		t.Errorf("Ping of nobody = %v, want an UnreachableError without the password", err)
	}
}

func TestWrongPasswordIsSaid(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	c, err := rabbitmq.NewConnector(strings.Replace(s.URL(), "guest:guest", "guest:wrong", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := rabbitmq.NewCommandBroker(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var e *sinks.QueueError
	if err := b.OpenQueue(t.Context(), "fleet"); !errors.As(err, &e) || !strings.Contains(e.Reason, "refuses the user or the password") {
		t.Errorf("OpenQueue with a wrong password = %v, want a QueueError that says so", err)
	}
}
