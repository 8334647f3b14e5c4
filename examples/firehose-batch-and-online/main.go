// Command firehose-batch-and-online reads one firehose in three ways. It needs
// no server of its own, since it starts one:
//
//	go run ./examples/firehose-batch-and-online
//
// The shop's seats are a region; every change of them is stored in a stream.
// A batch job reads what the stream holds and ends, as a nightly report does. A
// dashboard goes on where the report ended and follows, so it shows every sale once.
// Two mailers share the stream as a consumer group: each sale is mailed by one of them,
// and what happens to one seat is handled in order. The readers of this program
// could as well be three programs on three machines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A Seat is the value of one entry. Its key is the train and the seat's number.
type Seat struct {
	Price     int
	Passenger string // empty while it is free
}

// A sale happens when a seat gets a passenger. It is all that the readers here look at.
func sale(c listeners.Change[Seat]) bool { return c.Before.Passenger == "" && c.After.Passenger != "" }

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "firehose-batch-and-online:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	nc, stop, err := connect()
	if err != nil {
		return err
	}
	defer stop()

	shop := grid.New("shop", nil)
	seats, err := grid.Open[string, Seat](shop, "seats", nil)
	if err != nil {
		return err
	}
	firehose, err := jetstream.NewRegion(nc, shop.Name(), seats.Name(), nil)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()
	stored, err := seats.Subscribe("firehose", firehose, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		return err
	}
	<-stored.Live()                                           // before, what happens is only part of the state that the stream begins with
	sell := func(passenger string, numbers ...string) error { // one transaction
		return shop.Do(ctx, func(tx *grid.Tx) error {
			in := grid.In(tx, seats)
			for _, number := range numbers {
				seat, _ := in.Get(number)
				seat.Passenger = passenger
				if err := in.Put(number, seat); err != nil {
					return err
				}
			}
			return nil
		})
	}

	// During the day seats are put up and sold.
	for _, number := range []string{"ICE 7/11A", "ICE 7/11B", "ICE 7/12A", "ICE 9/1A"} {
		if _, err := seats.Put(ctx, number, Seat{Price: 40}); err != nil {
			return err
		}
	}
	if err := sell("Ada", "ICE 7/11A", "ICE 7/11B"); err != nil {
		return err
	}
	if err := until(ctx, func() bool { return firehose.Stored().Compare(seats.Position()) >= 0 }); err != nil {
		return err
	}

	report := &takings{}
	if err := batch(ctx, nc, report); err != nil {
		return err
	}
	fmt.Fprintf(out, "report: %d seats sold for %d in %d bookings\n", report.seats, report.money, report.bookings)

	mailed := new(mailbox)
	readers, quit := context.WithCancel(ctx)
	ended := make(chan error, 3)
	go func() { ended <- online(readers, nc, report, out) }()
	go func() { ended <- mail(readers, nc, mailed) }()
	go func() { ended <- mail(readers, nc, mailed) }()

	// In the evening two more are sold.
	for _, err := range []error{sell("Bob", "ICE 7/12A"), sell("Cid", "ICE 9/1A")} {
		if err != nil {
			quit()
			return err
		}
	}
	err = until(ctx, func() bool { return report.done.Load() && mailed.mails.Load() == 4 })
	quit()
	err = errors.Join(err, <-ended, <-ended, <-ended)
	fmt.Fprintf(out, "mailers: %d mails\n", mailed.mails.Load())
	return errors.Join(err, shop.Close(ctx))
}

// takings is a listener. It adds up sales, in a batch and online alike, and in
// the process of the shop it would do the same.
type takings struct {
	seats, money, bookings int
	sold                   int // in the transaction at hand
	last                   listeners.Position
	done                   atomic.Bool
}

// batch reads what the stream holds and returns.
func batch(ctx context.Context, nc *nats.Conn, t *takings) error {
	source, err := jetstream.NewSource(nc, jetstream.RegionStreamName("shop", "seats"), &sinks.SourceOptions{
		Start: sinks.Start{Oldest: true}, UntilTip: true,
	})
	if err != nil {
		return err
	}
	if _, err := source.Subscribe("report", t.listener(nil), nil); err != nil {
		return err
	}
	return source.Run(ctx)
}

// online goes on behind the last transaction of the report.
func online(ctx context.Context, nc *nats.Conn, t *takings, out io.Writer) error {
	source, err := jetstream.NewSource(nc, jetstream.RegionStreamName("shop", "seats"), &sinks.SourceOptions{
		Start: sinks.Start{After: t.last},
	})
	if err != nil {
		return err
	}
	if _, err := source.Subscribe("dashboard", t.listener(out), nil); err != nil {
		return err
	}
	return source.Run(ctx)
}

func (t *takings) listener(out io.Writer) listeners.Listener {
	return listeners.Handlers[Seat]{
		OnUpdate: func(_ context.Context, c listeners.Change[Seat]) error {
			if sale(c) {
				t.sold++
				t.seats++
				t.money += c.After.Price
			}
			return nil
		},
		OnCommit: func(_ context.Context, _ listeners.Tx, at listeners.Position) error {
			t.last = at // what a program that ends would store
			if t.sold > 0 {
				t.bookings++
			}
			t.sold = 0
			if out != nil {
				fmt.Fprintf(out, "dashboard: %d seats sold for %d in %d bookings\n", t.seats, t.money, t.bookings)
			}
			t.done.Store(t.seats == 4)
			return nil
		},
	}
}

// A mailbox sends one mail for each seat: when a member of a group dies or is
// held up, the next one may hear its last events again.
type mailbox struct {
	seats sync.Map
	mails atomic.Int64
}

func (m *mailbox) sold(seat string) {
	if _, again := m.seats.LoadOrStore(seat, true); !again {
		m.mails.Add(1)
	}
}

// mail takes part in the group "mailers" until ctx ends.
func mail(ctx context.Context, nc *nats.Conn, mailed *mailbox) error {
	groups, err := jetstream.NewRegionGroups(nc, "shop", "seats", nil)
	if err != nil {
		return err
	}
	group, err := sinks.NewGroup(groups, "mailers", &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}})
	if err != nil {
		return err
	}
	return group.Run(ctx, func(sinks.GroupPartition) listeners.Listener {
		return listeners.Handlers[Seat]{
			OnUpdate: func(_ context.Context, c listeners.Change[Seat]) error {
				if sale(c) {
					mailed.sold(c.Key)
				}
				return nil
			},
		}
	})
}

func until(ctx context.Context, done func() bool) error {
	for poll := time.NewTicker(5 * time.Millisecond); ; {
		if done() {
			poll.Stop()
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// connect starts a server. Any NATS server with JetStream will do.
func connect() (*nats.Conn, func(), error) {
	dir, err := os.MkdirTemp("", "firehose")
	if err != nil {
		return nil, nil, err
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.Start()
	stop := func() { s.Shutdown(); s.WaitForShutdown(); _ = os.RemoveAll(dir) }
	if !s.ReadyForConnections(time.Minute) {
		stop()
		return nil, nil, errors.New("the NATS server does not accept connections")
	}
	nc, err := jetstream.Connect(s.ClientURL(), nil)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return nc, func() { nc.Close(); stop() }, nil
}
