package cdc_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

// A listener on one table, until the program is interrupted. The next run goes
// on where this one ended.
func Example() {
	type Seat struct {
		ID    int64
		Price string  // numeric, with all its digits
		Buyer *string `db:"passenger"` // may be NULL
	}
	src, err := cdc.New("postgres://app@localhost/shop", &cdc.Options{Tables: []string{"public.seats"}})
	if err != nil {
		log.Fatal(err)
	}
	_, err = src.Table("public.seats").Subscribe("printer", listeners.Handlers[Seat]{
		OnCreate: func(_ context.Context, c listeners.Change[Seat]) error {
			fmt.Println("new seat", c.After.ID, "for", c.After.Price)
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[Seat]) error {
			fmt.Println("no more seat", c.Key)
			return nil
		},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err = src.Run(ctx)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// Whole transactions of all tables, as batches of undecoded records.
func ExampleSource_Subscribe() {
	src, err := cdc.New("postgres://app@localhost/shop", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = src.Subscribe("audit", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for i := range b.Events {
			e := &b.Events[i]
			fmt.Printf("%s %s %s/%s price=%s\n", e.Position, e.Op, e.Schema.Collection(), e.Key(), e.After.Get("price"))
		}
		return nil
	}), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := src.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A program that ends when everything committed so far is handled.
func ExampleSource_CaughtUp() {
	src, err := cdc.New("postgres://app@localhost/shop", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := src.Subscribe("mail", listeners.Handlers[struct{ Email string }]{}, nil); err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- src.Run(ctx) }()
	err = src.CaughtUp(ctx)
	stop()
	fmt.Println(err, <-ran, src.Stats().Events)
}

func ExampleParseLSN() {
	lsn, err := cdc.ParseLSN("16/B374D848")
	fmt.Println(uint64(lsn), lsn, err)
	// Output: 97500059720 16/B374D848 <nil>
}
