// Command tickets hears what happens to the seats of a ticket shop, in three
// ways. It is meant to be copied.
//
// It needs a database with wal_level = logical and this table:
//
//	CREATE TABLE seats (
//	    id        int PRIMARY KEY,
//	    train     int NOT NULL,
//	    number    text NOT NULL,
//	    price     numeric(10,2) NOT NULL,
//	    passenger text
//	);
//
// Start it, and sell a seat in psql:
//
//	go run ./examples/tickets -database-url postgres://app@localhost/shop
//	UPDATE seats SET passenger = 'Ada' WHERE id = 1;
//
// With -nats-url nats://127.0.0.1:4222 it also publishes the changes on that
// server (JetStream must be on) and subscribes there, as a program in any
// language would.
//
// It creates a publication and a slot named tickets_example. A slot makes the
// database keep its log for as long as nobody reads it, so drop it afterwards:
//
//	SELECT pg_drop_replication_slot('tickets_example');
//	DROP PUBLICATION tickets_example;
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// Seat is one row of the table. The tags name its columns.
type Seat struct {
	ID        int     `db:"id"`
	Train     int     `db:"train"`
	Number    string  `db:"number"`
	Price     string  `db:"price"` // a string keeps a numeric exact
	Passenger *string `db:"passenger"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tickets:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tickets", flag.ContinueOnError)
	databaseURL := flags.String("database-url", os.Getenv("ROWCALL_DATABASE_URL"), "database to listen to")
	natsURL := flags.String("nats-url", os.Getenv("ROWCALL_NATS_URL"), "NATS server to publish to; none if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *databaseURL == "" {
		return errors.New("which database? Start it with -database-url postgres://app@localhost/shop, " +
			"or set ROWCALL_DATABASE_URL. \"rowcall demo\" shows the same without a database of yours")
	}

	// The source reads the committed changes of one database.
	source, err := cdc.New(*databaseURL, &cdc.Options{Tables: []string{"public.seats"}, Slot: "tickets_example"})
	if err != nil {
		return err
	}

	// A region mirrors the table in memory; the primary key is its key.
	g := grid.New("tickets", nil)
	seats, err := grid.Mirror[int, Seat](g, "seats", source.Table("public.seats"), nil)
	if err != nil {
		return err
	}

	// A listener hears of each committed change, with the old and the new row.
	listener := &counter{seats: seats, out: out}
	_, err = seats.Subscribe("counter", listeners.Handlers[Seat]{
		OnLive:   listener.onLive,
		OnUpdate: listener.onUpdate,
	}, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		return err
	}

	if *natsURL != "" {
		nc, err := publish(ctx, source, *natsURL, out)
		if err != nil {
			return err
		}
		defer nc.Close()
	}

	// Run blocks until ctx ends, which here is Ctrl-C.
	err = source.Run(ctx)
	return errors.Join(err, g.Close(context.WithoutCancel(ctx)))
}

// A counter is a listener with a state of its own. Its methods are called on
// one goroutine, in commit order, so it needs no lock.
type counter struct {
	seats *grid.Region[int, Seat]
	out   io.Writer
}

// onLive is called once the region holds the table as it is now.
func (c *counter) onLive(context.Context) error {
	fmt.Fprintf(c.out, "region: %d seats\n", c.seats.Len())
	return nil
}

func (c *counter) onUpdate(_ context.Context, change listeners.Change[Seat]) error {
	seat := change.After
	if change.Before.Passenger != nil || seat.Passenger == nil {
		return nil // not a sale
	}
	free := 0
	for _, other := range c.seats.All() {
		if other.Train == seat.Train && other.Passenger == nil {
			free++
		}
	}
	fmt.Fprintf(c.out, "listener: %s bought seat %s of train %d for %s, %d are free\n",
		*seat.Passenger, seat.Number, seat.Train, seat.Price, free)
	return nil
}

// publish stores every change in a JetStream stream, and subscribes to them as
// any NATS client can.
func publish(ctx context.Context, source *cdc.Source, natsURL string, out io.Writer) (*nats.Conn, error) {
	nc, err := jetstream.Connect(natsURL, nil)
	if err != nil {
		return nil, err
	}
	subject := sinks.DatabaseAddress(source.Database()) + ".public.seats.update.>"
	_, err = nc.Subscribe(subject, func(m *nats.Msg) {
		fmt.Fprintf(out, "nats: %s %s\n", m.Header.Get("ce-subject"), m.Data)
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	firehose, err := jetstream.New(nc, source.Database(), nil)
	if err == nil {
		err = firehose.Open(ctx)
	}
	if err == nil {
		_, err = source.Subscribe("firehose", firehose, nil)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nil
}
