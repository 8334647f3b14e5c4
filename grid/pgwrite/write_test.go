package pgwrite_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestAWriteReturnsWhenTheRegionShowsIt(t *testing.T) {
	s := newShop(t, "INSERT INTO trains VALUES (1, 'IC 1', 0, 'other')")
	rec := new(listenertest.Recorder)
	if _, err := s.group.Subscribe("recorder", rec, nil); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	at, err := s.put.Put(ctx, "1A", seat{Class: "first", Price: "40.5", Sold: 3})
	if err != nil {
		t.Fatalf("Put() of a new row = %v, want nil", err)
	}
	if got, _ := s.seats.Entry("1A"); got.Value != (seat{Class: "first", Price: "40.50", Sold: 3}) || got.Version.Commit != at.Commit {
		t.Errorf("after Put() at %s the region has %+v, want the row as the database stored it", at, got)
	}
	if _, err = s.put.Put(ctx, "1A", seat{Class: "second", Price: "30", Sold: 4}); err != nil {
		t.Fatalf("Put() of a row that exists = %v, want nil", err)
	}
	if got, _ := s.seats.Get("1A"); got != (seat{Class: "second", Price: "30.00", Sold: 4}) {
		t.Errorf("after the second Put() the region has %+v", got)
	}
	if _, err := s.call.Put(ctx, 1, train{Name: "IC 1", Sold: 1}); err != nil {
		t.Fatalf("Put() = %v, want nil", err)
	}
	if got := s.row(t, "SELECT secret FROM trains WHERE id = 1"); got != "other" {
		t.Errorf("a column without a field is %q after Put(), want what it was", got)
	}
	if got := s.row(t, "SELECT total FROM seats"); got != "8" {
		t.Errorf("the generated column is %q, want the database's own 8", got)
	}
	if _, err := s.call.Insert(ctx, 2, train{Name: "IC 2"}); err != nil {
		t.Fatalf("Insert() = %v, want nil", err)
	}
	if got := s.row(t, "SELECT secret FROM trains WHERE id = 2"); got != "kept" {
		t.Errorf("a column without a field is %q after Insert(), want its default", got)
	}
	exists, isExists := errors.AsType[*grid.ExistsError](second(s.call.Insert(ctx, 2, train{Name: "IC 3"})))
	if !isExists || exists.Key != int64(2) {
		t.Errorf("Insert() of a row that exists = %v, want an ExistsError of key 2", exists)
	}
	_, err = s.call.Update(ctx, 2, func(v train) (train, error) {
		v.Sold += 5
		return v, nil
	})
	if err != nil {
		t.Fatalf("Update() = %v, want nil", err)
	}
	if got, _ := s.trains.Get(2); got != (train{"IC 2", 5}) {
		t.Errorf("after Update() the region has %+v", got)
	}
	if _, err := s.call.Update(ctx, 99, func(v train) (train, error) { return v, nil }); !errors.Is(err, grid.ErrNotFound) {
		t.Errorf("Update() without a row = %v, want ErrNotFound", err)
	}
	broken := errors.New("broken")
	if _, err := s.call.Update(ctx, 2, func(v train) (train, error) { return v, broken }); !errors.Is(err, broken) {
		t.Errorf("Update() with a function that fails = %v, want its error", err)
	}
	if at, existed, err := s.call.Delete(ctx, 2); err != nil || !existed || at.IsZero() {
		t.Errorf("Delete() = %s, %t, %v; want a position and that it existed", at, existed, err)
	}
	if _, ok := s.trains.Get(2); ok {
		t.Error("the region shows a row after Delete()")
	}
	if at, existed, err := s.call.Delete(ctx, 2); err != nil || existed || !at.IsZero() {
		t.Errorf("Delete() without a row = %s, %t, %v; want nothing", at, existed, err)
	}
	events, err := rec.WaitEvents(ctx, 6)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %s/%s", e.Op, e.Collection, e.Key))
	}
	if got, want := strings.Join(got, ", "), "create seats/1A, update seats/1A, update trains/1, create trains/2, update trains/2, delete trains/2"; got != want {
		t.Errorf("listeners heard %s; want each change once: %s", got, want)
	}
}

func second[T any](_ T, err error) error { return err }

func TestWritersReadTheirOwnWrites(t *testing.T) {
	s := newShop(t, "INSERT INTO trains VALUES (1, 'IC 1', 0)")
	const hands, rounds = 4, 25
	var wg sync.WaitGroup
	for range hands {
		mine := bind(t, s.writer(t, nil), s.trains, "public.trains")
		wg.Go(func() {
			for range rounds {
				var mineIs int
				_, err := mine.Update(deadline(t), 1, func(v train) (train, error) {
					v.Sold++
					mineIs = v.Sold
					return v, nil
				})
				if err != nil {
					t.Errorf("Update() = %v, want nil", err)
					return
				}
				if v, _ := s.trains.Get(1); v.Sold < mineIs {
					t.Errorf("the region shows %d after a write of %d returned", v.Sold, mineIs)
				}
			}
		})
	}
	wg.Wait()
	if v, _ := s.trains.Get(1); v.Sold != hands*rounds {
		t.Errorf("%d updates made %d", hands*rounds, v.Sold)
	}
}

func TestATransactionOverSeveralTables(t *testing.T) {
	s := newShop(t, "INSERT INTO trains VALUES (1, 'IC 1', 0)")
	rec := new(listenertest.Recorder)
	if _, err := s.group.Subscribe("recorder", rec, nil); err != nil {
		t.Fatal(err)
	}
	sell := func(class string, fail error) error {
		return s.w.Do(deadline(t), func(tx *pgwrite.Tx) error {
			if err := pgwrite.In(tx, s.call).Update(1, func(v train) (train, error) { v.Sold++; return v, nil }); err != nil {
				return err
			}
			if _, err := tx.Pgx().Exec(t.Context(), "UPDATE trains SET secret = 'by hand' WHERE id = 1"); err != nil {
				return err
			}
			if err := pgwrite.In(tx, s.put).Insert("1A", seat{Class: class, Price: "1", Sold: 1}); err != nil {
				return err
			}
			return fail
		})
	}
	broken := errors.New("broken")
	if err := sell("first", broken); !errors.Is(err, broken) {
		t.Errorf("Do() = %v, want the function's error", err)
	}
	if err := sell("third", nil); err == nil {
		t.Error("Do() with a row that the database refuses = nil")
	}
	if err := sell("first", nil); err != nil {
		t.Fatalf("Do() = %v, want nil", err)
	}
	snap := s.group.Snapshot()
	trains, _ := grid.SnapshotOf(snap, s.trains)
	seats, _ := grid.SnapshotOf(snap, s.seats)
	if v, _ := trains.Get(1); v.Sold != 1 || seats.Len() != 1 {
		t.Errorf("the regions show %d sold and %d seats, want 1 and 1", v.Sold, seats.Len())
	}
	batches, err := rec.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) > 0 })
	if err != nil || len(batches) != 1 || len(batches[0].Events) != 3 {
		t.Errorf("listeners heard %+v, %v; want one batch of three changes", batches, err)
	}
}

func TestTheDatabasesRefusalIsClear(t *testing.T) {
	s := newShop(t, "INSERT INTO trains VALUES (1, 'IC 1', 0)", "INSERT INTO seats (number, class, price, sold, berth) VALUES ('9Z', 'first', 1, 0, 7)")
	type berth struct {
		Class string
		Sold  int
		Berth int64
		Train *int64
	}
	type named struct {
		Name *string
	}
	g := grid.New("more", nil)
	t.Cleanup(func() { _ = g.Close(context.WithoutCancel(t.Context())) })
	berths, err := grid.Mirror[string, berth](g, "berths", s.seats, nil)
	if err != nil {
		t.Fatal(err)
	}
	names, err := grid.Mirror[int64, named](g, "names", s.trains, nil)
	if err != nil {
		t.Fatal(err)
	}
	seats, trains := bind(t, s.w, berths, "public.seats"), bind(t, s.w, names, "public.trains")
	none := int64(99)
	for name, tc := range map[string]struct {
		err        error
		constraint string
		code       string
	}{
		"check":    {second(seats.Put(deadline(t), "1A", berth{Class: "third"})), "seats_class_check", "23514"},
		"not null": {second(trains.Put(deadline(t), 1, named{})), "name", "23502"},
		"unique":   {second(seats.Insert(deadline(t), "1A", berth{Class: "first", Berth: 7})), "seats_berth_key", "23505"},
		"deferred": {second(seats.Put(deadline(t), "1A", berth{Class: "first", Train: &none})), "seats_train_fkey", "23503"},
	} {
		c, ok := errors.AsType[*pgwrite.ConstraintError](tc.err)
		if !ok || c.Constraint != tc.constraint || c.Code != tc.code || !strings.Contains(tc.err.Error(), "public.") {
			t.Errorf("%s: error %v, want a ConstraintError of %s", name, tc.err, tc.constraint)
		}
	}
	_, err = s.put.Put(deadline(t), "1A", seat{Class: "first", Price: "cheap"})
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "22P02" {
		t.Errorf("Put() of a price that is no number = %v, want the server's error", err)
	}
	// What was refused is forgotten: the same writer goes on.
	if _, err := s.put.Put(deadline(t), "1A", seat{Class: "first", Price: "1"}); err != nil {
		t.Errorf("Put() after errors = %v, want nil", err)
	}
	err = s.w.Do(deadline(t), func(tx *pgwrite.Tx) error {
		_ = pgwrite.In(tx, s.put).Put("1B", seat{Class: "third", Price: "1"})
		return nil // as if nothing had happened
	})
	if _, ok := errors.AsType[*pgwrite.ConstraintError](err); !ok {
		t.Errorf("Do() with a refused write that was not passed on = %v, want a ConstraintError", err)
	}
}

func TestATransactionThatDeadlocksIsTriedAgain(t *testing.T) {
	s := newShop(t, "INSERT INTO trains VALUES (1, 'IC 1', 0), (2, 'IC 2', 0)")
	other := s.writer(t, nil)
	tables := []*pgwrite.Table[int64, train]{s.call, bind(t, other, s.trains, "public.trains")}
	both := make(chan struct{}, 2)
	var met sync.WaitGroup
	met.Add(2)
	go func() { <-both; <-both; met.Done(); met.Done() }()
	var wg sync.WaitGroup
	calls := make([]int, 2)
	for i, w := range []*pgwrite.Writer{s.w, other} {
		wg.Go(func() {
			add := func(tx *pgwrite.Tx, k int64) error {
				return pgwrite.In(tx, tables[i]).Update(k, func(v train) (train, error) { v.Sold++; return v, nil })
			}
			err := w.Do(deadline(t), func(tx *pgwrite.Tx) error {
				calls[i]++
				if err := add(tx, int64(1+i)); err != nil {
					return err
				}
				if calls[i] == 1 {
					both <- struct{}{}
					met.Wait()
				}
				return add(tx, int64(2-i))
			})
			if err != nil {
				t.Errorf("Do() = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	one, _ := s.trains.Get(1)
	two, _ := s.trains.Get(2)
	if one.Sold != 2 || two.Sold != 2 || calls[0]+calls[1] < 3 {
		t.Errorf("after %v calls the regions show %d and %d, want a second try and 2 and 2", calls, one.Sold, two.Sold)
	}
}

func TestAListenerMayWriteThrough(t *testing.T) {
	s := newShop(t, "INSERT INTO trains VALUES (1, 'IC 1', 0)")
	done := make(chan error, 1)
	_, err := s.seats.Subscribe("counter", listeners.Handlers[seat]{OnCreate: func(ctx context.Context, _ listeners.Change[seat]) error {
		_, err := s.call.Update(ctx, 1, func(v train) (train, error) { v.Sold++; return v, nil })
		if v, _ := s.trains.Get(1); err == nil && v.Sold != 1 {
			err = fmt.Errorf("the region shows %d", v.Sold)
		}
		done <- err
		return nil
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bind(t, s.writer(t, nil), s.seats, "public.seats").Put(deadline(t), "1A", seat{Class: "first", Price: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Update() by a listener = %v, want nil", err)
	}
}
