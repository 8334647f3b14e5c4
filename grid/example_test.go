package grid_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// Seat is the value type of the examples.
type Seat struct {
	Class string
	Price int
	Sold  bool
}

func Example() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := seats.Put(ctx, "12B", Seat{"second", 40, false}); err != nil {
		log.Fatal(err)
	}
	if _, err := seats.Put(ctx, "12A", Seat{"first", 90, false}); err != nil {
		log.Fatal(err)
	}
	seat, ok := seats.Get("12A")
	fmt.Println(seat, ok)
	for number, seat := range seats.All() {
		fmt.Println(number, seat.Class)
	}
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// {first 90 false} true
	// 12A first
	// 12B second
}

func ExampleRegion_Subscribe() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = seats.Subscribe("repricer", listeners.Handlers[Seat]{
		OnUpdate: func(_ context.Context, c listeners.Change[Seat]) error {
			fmt.Printf("%s: %d -> %d\n", c.Key, c.Before.Price, c.After.Price)
			return nil
		},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, price := range []int{40, 45, 60} {
		if _, err := seats.Put(ctx, "12A", Seat{"second", price, false}); err != nil {
			log.Fatal(err)
		}
	}
	// Close returns when the listener has heard of everything.
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 12A: 40 -> 45
	// 12A: 45 -> 60
}

// With Current, a listener hears of what is there before it hears of changes.
func ExampleRegion_Subscribe_current() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := seats.Put(ctx, "12A", Seat{"first", 90, false}); err != nil {
		log.Fatal(err)
	}
	say := func(_ context.Context, c listeners.Change[Seat]) error {
		fmt.Println(c.Op, c.Key, c.After.Price)
		return nil
	}
	sub, err := seats.Subscribe("board", listeners.Handlers[Seat]{
		OnRead:   say,
		OnCreate: say,
		OnLive:   func(context.Context) error { fmt.Println("live"); return nil },
	}, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		log.Fatal(err)
	}
	<-sub.Live()
	if _, err := seats.Put(ctx, "12B", Seat{"second", 40, false}); err != nil {
		log.Fatal(err)
	}
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// read 12A 90
	// live
	// create 12B 40
}

// Here the source is another region; a Postgres table is mirrored the same way.
func ExampleMirror() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := seats.Put(ctx, "12A", Seat{"first", 90, true}); err != nil {
		log.Fatal(err)
	}
	type Fare struct { // the columns that matter here
		Price int
	}
	fares, err := grid.Mirror[string, Fare](g, "fares", seats, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := fares.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	fare, _ := fares.Get("12A")
	fmt.Println(fare.Price)

	_, err = fares.Put(ctx, "12A", Fare{1})
	fmt.Println(err)
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 90
	// grid: put into region "fares": a mirror is read-only: write to its source, or use grid.Open for a region of your own
}
