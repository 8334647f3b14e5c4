package grid_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// Regions can be made, found by name, and removed at any time.
func ExampleLookup() {
	ctx := context.Background()
	g := grid.New("sessions", nil)
	berlin, err := grid.Open[string, int](g, "berlin", nil)
	if err != nil {
		log.Fatal(err)
	}
	sub, err := berlin.Subscribe("counter", listeners.Handlers[int]{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if r, err := grid.Lookup[string, int](g, "berlin"); err == nil {
		fmt.Println("found", r.Name())
	}
	if err := berlin.Close(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = grid.Lookup[string, int](g, "berlin")
	fmt.Println(errors.Is(err, grid.ErrNoRegion))
	fmt.Println(sub.Reason())
	// Output:
	// found berlin
	// true
	// region "berlin" of grid "sessions" was closed: listeners: closed
}
