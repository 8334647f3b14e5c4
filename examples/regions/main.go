// Command regions shows an in-memory region and its listeners. It needs no
// server:
//
//	go run ./examples/regions
//
// A region holds the seats of a train. When a seat is sold, a listener raises
// the price of those that are left, by writing into the same region.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A Seat is the value of one entry. What is in a region is never changed, only
// replaced: put a changed copy.
type Seat struct {
	Price int
	Sold  bool
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	tickets := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](tickets, "seats", nil)
	if err != nil {
		return err
	}
	if _, err := seats.Subscribe("repricer", repricer(seats), nil); err != nil {
		return err
	}
	repriced := make(chan string, 1)
	if _, err := seats.Subscribe("printer", printer(out, repriced), nil); err != nil {
		return err
	}

	for _, number := range []string{"12A", "12B", "12C"} {
		if _, err := seats.Put(ctx, number, Seat{Price: 40}); err != nil {
			return err
		}
	}
	if _, err := seats.Put(ctx, "12B", Seat{Price: 40, Sold: true}); err != nil {
		return err
	}
	// Listeners run after Put has returned. This waits until the printer has
	// heard of the last change that the repricer makes.
	for number := range repriced {
		if number == "12C" {
			break
		}
	}

	fmt.Fprintln(out, "In the end:")
	for number, seat := range seats.All() {
		fmt.Fprintf(out, "  %s %+v\n", number, seat)
	}
	return tickets.Close(ctx)
}

// repricer returns a listener that makes every seat dearer when one is sold. A
// listener that writes passes on the context it was called with.
func repricer(seats *grid.Region[string, Seat]) listeners.Listener {
	return listeners.Handlers[Seat]{
		OnUpdate: func(ctx context.Context, c listeners.Change[Seat]) error {
			if c.Before.Sold || !c.After.Sold {
				return nil // not a sale; perhaps our own new price
			}
			for number, seat := range seats.All() {
				if seat.Sold {
					continue
				}
				seat.Price += 10
				if _, err := seats.Put(ctx, number, seat); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// printer returns a listener that says what it hears: every change, in the
// order in which they were made, and the old value along with the new one.
func printer(out io.Writer, repriced chan<- string) listeners.Listener {
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
			repriced <- c.Key
			return nil
		},
	}
}
