package grid_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// Two tables of one source, mirrored together. Here the source is one of the
// tests; of a database it is what cdc.New returns.
func ExampleGroup() {
	ctx := context.Background()
	src := newShop()

	g := grid.New("shop", nil)
	group, err := grid.NewGroup(g, "trade", src, nil)
	if err != nil {
		log.Fatal(err)
	}
	items, err := grid.AddTable[int64, item](group, "items", "public.items", nil)
	if err != nil {
		log.Fatal(err)
	}
	orders, err := grid.AddTable[int64, item](group, "orders", "public.orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := group.Start(); err != nil {
		log.Fatal(err)
	}
	if err := group.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	heard := make(chan struct{})
	_, err = group.Subscribe("audit", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for _, e := range b.Events {
			fmt.Println(e.Op, e.Schema.Collection(), e.Key())
		}
		// Both regions show what the listener hears.
		s := group.Snapshot()
		now, _ := grid.SnapshotOf(s, items)
		sold, _ := grid.SnapshotOf(s, orders)
		fmt.Println(now.Len(), "items,", sold.Len(), "orders")
		close(heard)
		return nil
	}), nil)
	if err != nil {
		log.Fatal(err)
	}
	src.commit(2, // one transaction
		src.items.event(listeners.Create, "", "", "1|lamp|"),
		src.orders.event(listeners.Create, "", "", "7|one lamp|"))
	<-heard
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// create items 1
	// create orders 7
	// 1 items, 1 orders
}
