package grid_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

func ExampleRegionOptions_expiry() {
	ctx := context.Background()
	g := grid.New("shop", nil)
	sessions, err := grid.Open[string, string](g, "sessions", &grid.RegionOptions[string]{MaxEntries: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = sessions.Subscribe("audit", listeners.Handlers[string]{
		OnCreate: func(_ context.Context, c listeners.Change[string]) error {
			fmt.Println(c.After, "came by", c.Tx.Tag)
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[string]) error {
			fmt.Println(c.Before, "left:", c.Cause)
			return nil
		},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	web := grid.WithTag(ctx, "web")
	for i, name := range []string{"Ann", "Bob", "Cid"} {
		if i == 2 {
			sessions.Get("0") // so Bob is the one who was not seen for longest
		}
		if _, err := sessions.Put(web, fmt.Sprint(i), name); err != nil {
			fmt.Println(err)
		}
	}
	if _, err := sessions.PutTTL(web, "2", "Cid", time.Millisecond); err != nil {
		fmt.Println(err)
	}
	for sessions.Len() > 1 {
		time.Sleep(time.Millisecond)
	}
	if err := g.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// Ann came by web
	// Bob came by web
	// Cid came by web
	// Bob left: evict
	// Cid left: expire
}
