// Command two-processes shares a region between two processes over NATS. It
// needs no server of its own, since it starts one:
//
//	go run ./examples/two-processes
//
// The first process holds the seats of a train in a region, and stores the
// region's changes in a stream. It starts itself again as the second process,
// which mirrors the region: it reads seats without asking anybody, and its
// listeners hear what the first process does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A Seat is the value of one entry. Both processes have their own type for it;
// what counts is the names of the fields.
type Seat struct {
	Price int
	Sold  bool
}

func main() {
	mirrors := flag.String("mirror", "", "be the second process, and use the NATS server with this URL")
	flag.Parse()
	run := first
	if *mirrors != "" {
		run = func(ctx context.Context, out io.Writer) error { return second(ctx, *mirrors, out) }
	}
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// first owns the region.
func first(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "two-processes")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// Any NATS server with JetStream will do; here is one in this process.
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		return err
	}
	nats.Start()
	defer nats.WaitForShutdown()
	defer nats.Shutdown()
	if !nats.ReadyForConnections(time.Minute) {
		return errors.New("the NATS server does not accept connections")
	}
	nc, err := jetstream.Connect(nats.ClientURL(), nil)
	if err != nil {
		return err
	}
	defer nc.Close()

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
	if _, err := seats.Subscribe("firehose", firehose, &listeners.SubscribeOptions{Current: true}); err != nil {
		return err
	}

	// What is there before the second process joins, it gets as the state.
	for _, number := range []string{"12A", "12B"} {
		if _, err := seats.Put(ctx, number, Seat{Price: 40}); err != nil {
			return err
		}
	}
	joined, err := nc.SubscribeSync("shop.joined")
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	mirror := exec.CommandContext(ctx, os.Args[0], "-mirror", nats.ClientURL()) //nolint:gosec // it is this program
	mirror.Stdout, mirror.Stderr = out, os.Stderr
	if err := mirror.Start(); err != nil {
		return err
	}
	if _, err := joined.NextMsg(time.Minute); err != nil {
		return errors.Join(fmt.Errorf("the second process does not join: %w", err), mirror.Process.Kill(), mirror.Wait())
	}

	// What happens from now on, it hears.
	if _, err := seats.Put(ctx, "12A", Seat{Price: 40, Sold: true}); err != nil {
		return err
	}
	err = shop.Do(ctx, func(tx *grid.Tx) error { // one transaction here, one there
		in := grid.In(tx, seats)
		if err := in.Put("12B", Seat{Price: 50}); err != nil {
			return err
		}
		return in.Put("12C", Seat{Price: 50})
	})
	if err != nil {
		return err
	}
	if _, _, err := seats.Delete(ctx, "12A"); err != nil { // the train has left
		return err
	}
	if err := mirror.Wait(); err != nil {
		return fmt.Errorf("the second process: %w", err)
	}
	return shop.Close(ctx)
}

// second mirrors the region, and ends when seat 12A is gone.
func second(ctx context.Context, serverURL string, out io.Writer) error {
	nc, err := jetstream.Connect(serverURL, nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	source, err := jetstream.NewSource(nc, jetstream.RegionStreamName("shop", "seats"), nil)
	if err != nil {
		return err
	}
	local := grid.New("local", nil)
	seats, err := grid.Mirror[string, Seat](local, "seats", source, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- source.Run(ctx) }()
	if err := seats.WaitReady(ctx); err != nil {
		return err
	}
	for number, seat := range seats.All() {
		fmt.Fprintf(out, "the mirror begins with %s %+v\n", number, seat)
	}

	departed := make(chan struct{})
	if _, err := seats.Subscribe("board", board(out, departed), nil); err != nil {
		return err
	}
	if err := nc.Publish("shop.joined", nil); err != nil {
		return err
	}
	select {
	case <-departed:
	case err := <-running:
		return fmt.Errorf("the source stopped: %w", err)
	}
	for number, seat := range seats.All() {
		fmt.Fprintf(out, "the mirror ends with %s %+v\n", number, seat)
	}
	cancel()
	if err := <-running; err != nil {
		return err
	}
	return local.Close(context.WithoutCancel(ctx))
}

// board returns a listener that says what it hears.
func board(out io.Writer, departed chan<- struct{}) listeners.Listener {
	gone := false
	return listeners.Handlers[Seat]{
		OnCreate: func(_ context.Context, c listeners.Change[Seat]) error {
			fmt.Fprintf(out, "%s is for sale for %d\n", c.Key, c.After.Price)
			return nil
		},
		OnUpdate: func(_ context.Context, c listeners.Change[Seat]) error {
			if c.After.Sold {
				fmt.Fprintf(out, "%s is sold\n", c.Key)
				return nil
			}
			fmt.Fprintf(out, "%s costs %d, no longer %d\n", c.Key, c.After.Price, c.Before.Price)
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[Seat]) error {
			fmt.Fprintf(out, "%s is gone\n", c.Key)
			gone = true
			return nil
		},
		OnCommit: func(context.Context, listeners.Tx, listeners.Position) error {
			fmt.Fprintln(out, "-- committed")
			if gone {
				close(departed)
			}
			return nil
		},
	}
}
