package grid_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/grid"
)

func ExampleRegion_Update() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := seats.Insert(ctx, "12A", Seat{"first", 90, false}); err != nil {
		log.Fatal(err)
	}
	errSold := errors.New("sold to somebody else")
	sell := func(s Seat) (Seat, error) {
		if s.Sold {
			return s, errSold
		}
		s.Sold = true
		return s, nil
	}
	for range 2 {
		_, err := seats.Update(ctx, "12A", sell)
		fmt.Println(errors.Is(err, errSold))
	}
	// Output:
	// false
	// true
}

func ExampleRegion_CompareAndPut() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := seats.Put(ctx, "12A", Seat{"first", 90, false}); err != nil {
		log.Fatal(err)
	}
	read, _ := seats.Entry("12A")
	if _, err := seats.Put(ctx, "12A", Seat{"first", 80, false}); err != nil { // somebody else
		log.Fatal(err)
	}
	read.Value.Sold = true
	_, err = seats.CompareAndPut(ctx, "12A", read.Version, read.Value)
	var stale *grid.VersionError
	fmt.Println(errors.As(err, &stale))
	// Output:
	// true
}

func ExampleRegion_Range() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, int](g, "prices", nil)
	if err != nil {
		log.Fatal(err)
	}
	prices := func(yield func(string, int) bool) {
		_ = yield("11A", 40) && yield("12A", 41) && yield("12B", 42) && yield("13A", 43)
	}
	if _, err := seats.PutAll(ctx, prices); err != nil {
		log.Fatal(err)
	}
	for seat, price := range seats.Range("12", "13") {
		fmt.Println(seat, price)
	}
	// Output:
	// 12A 41
	// 12B 42
}

func ExampleGrid_Do() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	left, err := grid.Open[string, int](g, "left", nil)
	if err != nil {
		log.Fatal(err)
	}
	err = g.Do(ctx, func(tx *grid.Tx) error {
		n, _ := grid.In(tx, left).Get("first")
		if err := grid.In(tx, seats).Insert("12A", Seat{"first", 90, false}); err != nil {
			return err
		}
		return grid.In(tx, left).Put("first", n+1)
	})
	if err != nil {
		log.Fatal(err)
	}
	n, _ := left.Get("first")
	fmt.Println(seats.Len(), n)
	// Output:
	// 1 1
}

func ExampleNewIndex() {
	ctx := context.Background()
	g := grid.New("tickets", nil)
	seats, err := grid.Open[string, Seat](g, "seats", nil)
	if err != nil {
		log.Fatal(err)
	}
	type fare struct {
		Class string
		Price int
	}
	free, err := grid.NewIndex(seats, "free", func(_ string, s Seat) (fare, bool) {
		return fare{s.Class, s.Price}, !s.Sold
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for number, seat := range map[string]Seat{
		"1A": {"first", 90, false}, "1B": {"first", 70, false}, "1C": {"first", 60, true}, "2A": {"second", 40, false},
	} {
		if _, err := seats.Put(ctx, number, seat); err != nil {
			log.Fatal(err)
		}
	}
	for number, seat := range free.Range(fare{"first", 0}, fare{"first", 100}) {
		fmt.Println(number, seat.Price)
	}
	// Output:
	// 1B 70
	// 1A 90
}
