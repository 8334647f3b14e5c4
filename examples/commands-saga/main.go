// Command commands-saga sells train tickets over three services: tickets takes
// the booking, payment charges the card, fleet gives a seat. It needs no server
// of its own, since it starts one:
//
//	go run ./examples/commands-saga
//
// No service calls another. A booking is an entry of a region, and each of its
// changes is an event. The tickets service maps events to commands: what has
// happened to a booking decides what is to be done next. When the train is full,
// the saga is undone by a command of its own (the money goes back), and what
// cannot be carried out waits as a dead letter until somebody has looked at it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A State is how far a booking is.
type State string

// What a booking goes through.
const (
	Requested State = "requested" // the beginning
	Paid      State = "paid"      // there is no seat yet
	Booked    State = "booked"    // an end
	Declined  State = "declined"  // an end: nothing was charged
	Full      State = "full"      // paid for, but there is no seat
	Refunded  State = "refunded"  // an end: it was undone
)

// A Booking is the value of one entry. Its key is the passenger.
type Booking struct {
	Train int
	Card  string
	State State
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "commands-saga:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	commands, inbox, stop, err := open(ctx)
	if err != nil {
		return err
	}
	defer stop()

	shop := grid.New("shop", nil)
	bookings, err := grid.Open[string, Booking](shop, "bookings", nil)
	if err != nil {
		return err
	}
	// An event that is told again sends its command once: the command has the
	// event's id. While the broker is away, the listener waits for it.
	if _, err := bookings.Subscribe("saga", sinks.CommandsFor(commands, next(out)), nil); err != nil {
		return err
	}

	payment := &payment{bookings: bookings, out: out}
	fleet := &fleet{bookings: bookings, out: out, free: map[int]int{1: 1, 2: 1}}
	serving, cancel := context.WithCancel(ctx)
	served := make(chan error, 2)
	policy := &sinks.ServePolicy{MaxAttempts: 3, FirstDelay: 20 * time.Millisecond, Inbox: inbox}
	go func() { served <- commands.Serve(serving, paymentQueue, payment.handle, policy) }()
	go func() { served <- commands.Serve(serving, fleetQueue, fleet.handle, policy) }()

	err = story(ctx, out, commands, bookings, fleet)
	cancel()
	return errors.Join(err, <-served, <-served, shop.Close(ctx))
}

// next returns a function that says what is to be done after what has happened.
func next(out io.Writer) func(e *listeners.Event) (*sinks.Command, error) {
	return func(e *listeners.Event) (*sinks.Command, error) {
		if !e.After.Exists() {
			return nil, nil // a booking was deleted
		}
		var booking Booking
		if err := e.After.Scan(&booking); err != nil {
			return nil, err
		}
		fmt.Fprintf(out, "%s: %s\n", e.Key(), booking.State)
		order := sinks.Command{Body: e.After.AppendJSON(nil)}
		switch booking.State {
		case Requested:
			order.Queue, order.Name = paymentQueue, chargeCard
		case Paid:
			order.Queue, order.Name = fleetQueue, reserveSeat
		case Full:
			order.Queue, order.Name = paymentQueue, refundCard
		case Booked, Declined, Refunded:
			return nil, nil // the end
		}
		return &order, nil
	}
}

// story is what happens on this day.
func story(ctx context.Context, out io.Writer, commands *sinks.Commands, bookings *grid.Region[string, Booking], fleet *fleet) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ask := func(passenger string, b Booking, end State) error {
		b.State = Requested
		if _, err := bookings.Insert(ctx, passenger, b); err != nil {
			return err
		}
		return ends(ctx, bookings, passenger, end)
	}
	if err := ask("Ada", Booking{Train: 1, Card: "visa"}, Booked); err != nil {
		return err
	}
	if err := ask("Bob", Booking{Train: 1, Card: "visa"}, Refunded); err != nil { // Ada has the last seat
		return err
	}
	if err := ask("Cid", Booking{Train: 2, Card: "expired"}, Declined); err != nil {
		return err
	}

	// The depot of train 2 does not answer. After three attempts the command is a
	// dead letter, and nothing is lost: the booking stays paid for.
	fleet.closed.Store(true)
	if err := ask("Dee", Booking{Train: 2, Card: "visa"}, Paid); err != nil {
		return err
	}
	dead, err := firstDead(ctx, commands, fleetQueue)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "operator: %s is dead after %d attempts: %s\n", dead.Envelope.Name, dead.Dead.Attempts, dead.Dead.Error)
	fleet.closed.Store(false)
	if err := commands.RetryDead(ctx, fleetQueue, dead.Ref); err != nil { // or: rowcall commands retry fleet 1
		return err
	}
	return ends(ctx, bookings, "Dee", Booked)
}

// ends waits until a booking has got this far, and everybody has heard.
func ends(ctx context.Context, bookings *grid.Region[string, Booking], passenger string, end State) error {
	for poll := time.NewTicker(5 * time.Millisecond); ; {
		if b, _ := bookings.Get(passenger); b.State == end {
			poll.Stop()
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the booking of %s is not %s: %w", passenger, end, context.Cause(ctx))
		}
	}
}

func firstDead(ctx context.Context, commands *sinks.Commands, queue string) (sinks.DeadCommand, error) {
	for poll := time.NewTicker(5 * time.Millisecond); ; {
		for dead, err := range commands.Dead(ctx, queue) {
			poll.Stop()
			return dead, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return sinks.DeadCommand{}, fmt.Errorf("no dead letter in %s: %w", queue, context.Cause(ctx))
		}
	}
}

// open starts a server and opens the queues. Any NATS server with JetStream will
// do, and with package rabbitmq a RabbitMQ.
func open(ctx context.Context) (*sinks.Commands, sinks.Inbox, func(), error) {
	dir, err := os.MkdirTemp("", "commands-saga")
	if err != nil {
		return nil, nil, nil, err
	}
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		return nil, nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	nats.Start()
	closers := []func(){func() { nats.Shutdown(); nats.WaitForShutdown(); _ = os.RemoveAll(dir) }}
	stop := func() {
		for _, closer := range slices.Backward(closers) {
			closer()
		}
	}
	fail := func(err error) (*sinks.Commands, sinks.Inbox, func(), error) {
		stop()
		return nil, nil, nil, err
	}
	if !nats.ReadyForConnections(time.Minute) {
		return fail(errors.New("the NATS server does not accept connections"))
	}
	nc, err := jetstream.Connect(nats.ClientURL(), nil)
	if err != nil {
		return fail(err)
	}
	closers = append(closers, nc.Close)
	broker, err := jetstream.NewCommandBroker(nc, nil)
	if err != nil {
		return fail(err)
	}
	commands, err := sinks.NewCommands(broker, nil)
	if err != nil {
		return fail(err)
	}
	closers = append(closers, commands.Close)
	inbox, err := jetstream.OpenInbox(ctx, nc, nil)
	if err != nil {
		return fail(err)
	}
	if err := commands.Open(ctx, paymentQueue, fleetQueue); err != nil {
		return fail(err)
	}
	return commands, inbox, stop, nil
}
