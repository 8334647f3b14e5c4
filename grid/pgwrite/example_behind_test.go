package pgwrite_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// Write-behind: puts return at once, and the table follows, many changes in one
// transaction.
func ExampleBehind() {
	pgtest.Example("stored: 12A costs 45\n", behindExample)
	// Output: stored: 12A costs 45
}

func behindExample(ctx context.Context, databaseURL string) error {
	if err := pgtest.Execute(ctx, databaseURL, "CREATE TABLE seats (number text PRIMARY KEY, price int NOT NULL)"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, databaseURL) // a program has a pgxpool.Pool
	if err != nil {
		return err
	}
	defer conn.Close(ctx)

	type Seat struct{ Price int }
	shop := grid.New("shop", nil)
	seats, err := grid.Open[string, Seat](shop, "seats", nil)
	if err != nil {
		return err
	}
	behind, err := pgwrite.NewBehind[string, Seat](ctx, conn, "public.seats")
	if err != nil {
		return err
	}
	sub, err := seats.Subscribe("seats to postgres", behind, &listeners.SubscribeOptions{
		Current: true,
		Group:   &listeners.GroupPolicy{MaxWait: 50 * time.Millisecond},
		Retry:   &listeners.RetryPolicy{Attempts: 100, Park: true},
	})
	if err != nil {
		return err
	}
	var last listeners.Position
	for price := 40; price <= 45; price++ {
		if last, err = seats.Put(ctx, "12A", Seat{price}); err != nil {
			return err
		}
	}
	if err := sub.Wait(ctx, last); err != nil { // whoever wants to know that it is stored
		return err
	}
	if err := sub.CloseWait(ctx); err != nil {
		return err
	}
	var price int
	err = conn.QueryRow(ctx, "SELECT price FROM seats WHERE number = '12A'").Scan(&price)
	fmt.Println("stored: 12A costs", price)
	return errors.Join(err, shop.Close(ctx))
}
