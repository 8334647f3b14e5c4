package grid_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

type order struct {
	Customer string
	State    string
	Total    int
}

// A query tells what enters, changes and leaves a set of entries.
func ExampleNewQuery() {
	ctx := context.Background()
	shop := grid.New("shop", nil)
	orders, err := grid.Open[int, order](shop, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	big, err := grid.NewQuery(orders, "big open orders", func(_ int, o order) bool {
		return o.State == "open" && o.Total >= 1000
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	sub, err := big.Subscribe("printer", listeners.Handlers[order]{
		OnCreate: func(_ context.Context, c listeners.Change[order]) error {
			fmt.Println(c.Key, "enters with", c.After.Total)
			return nil
		},
		OnUpdate: func(_ context.Context, c listeners.Change[order]) error {
			fmt.Println(c.Key, "changes from", c.Before.Total, "to", c.After.Total)
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[order]) error {
			if !c.Event.After.Exists() {
				fmt.Println(c.Key, "leaves: it was deleted")
				return nil
			}
			fmt.Println(c.Key, "leaves: it is", c.After.State)
			return nil
		},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	put := func(key int, o order) {
		if _, err := orders.Put(ctx, key, o); err != nil {
			log.Fatal(err)
		}
	}
	put(1, order{"ada", "open", 900})
	put(2, order{"bob", "open", 1200})
	put(1, order{"ada", "open", 1100})
	put(2, order{"bob", "open", 1300})
	put(2, order{"bob", "paid", 1300})
	if _, _, err := orders.Delete(ctx, 1); err != nil {
		log.Fatal(err)
	}
	if err := sub.Wait(ctx, orders.Position()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(big.Len(), "left")
	if err := shop.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 2 enters with 1200
	// 1 enters with 1100
	// 2 changes from 1200 to 1300
	// 2 leaves: it is paid
	// 1 leaves: it was deleted
	// 0 left
}

// Any number of queries by an index value share one look-up. Such a query can
// be read and mirrored, like any source.
func ExampleIndex_Query() {
	ctx := context.Background()
	shop := grid.New("shop", nil)
	orders, err := grid.Open[int, order](shop, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	byCustomer, err := grid.NewIndex(orders, "customer", func(_ int, o order) (string, bool) { return o.Customer, true }, nil)
	if err != nil {
		log.Fatal(err)
	}
	for key, o := range []order{{"ada", "open", 900}, {"bob", "open", 1200}, {"ada", "paid", 70}} {
		if _, err := orders.Put(ctx, key, o); err != nil {
			log.Fatal(err)
		}
	}
	ada, err := byCustomer.Query("ada's", "ada", nil)
	if err != nil {
		log.Fatal(err)
	}
	own, err := grid.Mirror[int, order](shop, "ada's orders", ada, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := own.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	for key, o := range own.All() {
		fmt.Println(key, o)
	}
	if err := shop.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 0 {ada open 900}
	// 2 {ada paid 70}
}

// The greatest values of an index, and no others, are read from its end.
func ExampleIndex_Backward() {
	ctx := context.Background()
	shop := grid.New("shop", nil)
	orders, err := grid.Open[int, order](shop, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	byTotal, err := grid.NewIndex(orders, "total", func(_ int, o order) (int, bool) { return o.Total, true }, nil)
	if err != nil {
		log.Fatal(err)
	}
	for key, o := range []order{{"ada", "open", 900}, {"bob", "open", 1200}, {"eve", "paid", 70}} {
		if _, err := orders.Put(ctx, key, o); err != nil {
			log.Fatal(err)
		}
	}
	place := 0
	for _, o := range byTotal.Backward() {
		place++
		fmt.Println(place, o.Customer, o.Total)
		if place == 2 {
			break
		}
	}
	if err := shop.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 1 bob 1200
	// 2 ada 900
}
