package grid_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rowcall/rowcall/grid"
)

func ExampleGrid_AddWriter() {
	ctx := context.Background()
	g := grid.New("shop", nil)
	emails, err := grid.Open[int, string](g, "emails", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	remove, err := g.AddWriter("tidy", func(_ context.Context, p *grid.Pending) error {
		changes := grid.Changing(p, emails)
		for id, to := range changes.All() {
			if to.After == "" {
				return errors.New("an address is needed")
			}
			if err := changes.Set(id, strings.ToLower(to.After)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer remove()
	if _, err := emails.Put(ctx, 1, "Ann@Example.org"); err != nil {
		fmt.Println(err)
	}
	if _, err := emails.Put(ctx, 2, ""); err != nil {
		fmt.Println(err)
	}
	for id, address := range emails.All() {
		fmt.Println(id, address)
	}
	if err := g.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// grid: put into region "emails": writer "tidy": an address is needed
	// 1 ann@example.org
}
