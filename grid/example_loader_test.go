package grid_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/grid"
)

func ExampleLoader() {
	ctx := context.Background()
	g := grid.New("shop", nil)
	prices, err := grid.Open[string, int](g, "prices", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	store := map[string]int{"apple": 3}
	loader, err := grid.NewLoader(prices, func(_ context.Context, name string) (int, bool, error) {
		price, ok := store[name]
		fmt.Println("ask the store for the", name)
		return price, ok, nil
	}, &grid.LoaderOptions{NegativeTTL: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"apple", "apple", "pear", "pear"} {
		price, ok, err := loader.Get(ctx, name)
		fmt.Println(name, price, ok, err)
	}
	// The store has changed: Delete makes the next Get ask it.
	store["pear"] = 4
	if _, _, err := prices.Delete(ctx, "pear"); err != nil {
		fmt.Println(err)
	}
	price, ok, err := loader.Get(ctx, "pear")
	fmt.Println("pear", price, ok, err)
	if err := g.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// ask the store for the apple
	// apple 3 true <nil>
	// apple 3 true <nil>
	// ask the store for the pear
	// pear 0 false <nil>
	// pear 0 false <nil>
	// ask the store for the pear
	// pear 4 true <nil>
}
