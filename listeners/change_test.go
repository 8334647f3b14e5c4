package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

type Seat struct {
	ID    int
	Seat  string
	Price int
	Note  *string
}

type seatChange = listeners.Change[Seat]

func TestChangeOfEachOperation(t *testing.T) {
	note := "window"
	ten := Seat{ID: 1, Seat: "A", Price: 10}
	twenty := Seat{ID: 1, Seat: "A", Price: 20, Note: &note}
	for name, tc := range map[string]struct {
		e    listeners.Event
		want seatChange
	}{
		"create": {
			listeners.Event{Op: listeners.Create, After: seat(1, "A", 10, nil)},
			seatChange{Key: "1", After: ten},
		},
		"read": {
			listeners.Event{Op: listeners.Read, Cause: listeners.CauseSnapshot, After: seat(1, "A", 10, nil)},
			seatChange{Key: "1", Cause: listeners.CauseSnapshot, After: ten},
		},
		"update with before": {
			listeners.Event{Op: listeners.Update, Before: seat(1, "A", 10, nil), After: seat(1, "A", 20, "window")},
			seatChange{Key: "1", Before: ten, HasBefore: true, After: twenty},
		},
		"update without before": {
			listeners.Event{Op: listeners.Update, After: seat(1, "A", 10, nil)},
			seatChange{Key: "1", After: ten},
		},
		"update without before names what is missing": {
			listeners.Event{Op: listeners.Update, After: seat(1, unsent, 10, unsent)},
			seatChange{Key: "1", After: Seat{ID: 1, Price: 10}, Missing: []string{"seat", "note"}},
		},
		"update fills what is missing from before": {
			listeners.Event{Op: listeners.Update, Before: seat(1, "A", 10, "window"), After: seat(1, unsent, 20, unsent)},
			seatChange{Key: "1", Before: Seat{ID: 1, Seat: "A", Price: 10, Note: &note}, HasBefore: true, After: twenty},
		},
		"update of the key": {
			listeners.Event{Op: listeners.Update, OldKey: seat(2, unsent, unsent, unsent), After: seat(1, "A", 10, nil)},
			seatChange{Key: "1", Before: Seat{ID: 2}, After: ten},
		},
		"delete with before": {
			listeners.Event{Op: listeners.Delete, Before: seat(1, "A", 10, nil)},
			seatChange{Key: "1", Before: ten, HasBefore: true},
		},
		"delete with the old key only": {
			listeners.Event{Op: listeners.Delete, OldKey: seat(1, unsent, unsent, unsent)},
			seatChange{Key: "1", Before: Seat{ID: 1}},
		},
		"delete without a key": {
			listeners.Event{Op: listeners.Delete},
			seatChange{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.e.Schema, tc.e.Position = seats, at(3)
			got, err := listeners.NewChange[Seat](&tc.e)
			if err != nil {
				t.Fatalf("NewChange: %v", err)
			}
			tc.want.Op, tc.want.Position, tc.want.Event = tc.e.Op, at(3), &tc.e
			if got.Event != &tc.e {
				t.Errorf("Event = %p, want the event itself", got.Event)
			}
			got.Event, tc.want.Event = nil, nil
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("NewChange (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChangeOfANativeValue(t *testing.T) {
	entry := func(value any, columns ...any) listeners.Record {
		return listeners.NewRecord(native{row{prices, columns}, value})
	}
	ten, twenty := "10", "20"
	update := listeners.Event{Op: listeners.Update, Schema: prices, Before: entry(&ten, 1, "ten"), After: entry(&twenty, 1, unsent)}

	// The same type: the value, not the columns.
	got, err := listeners.NewChange[string](&update)
	if err != nil || got.Before != "10" || got.After != "20" || !got.HasBefore || got.Missing != nil {
		t.Errorf("NewChange[string] = %+v, %v; want 10 to 20", got, err)
	}
	update.Before = listeners.Record{}
	if got, err = listeners.NewChange[string](&update); err != nil || got.After != "20" || got.Missing != nil {
		t.Errorf("NewChange[string] without before = %+v, %v; want 20 and nothing missing", got, err)
	}

	type price struct {
		ID    int
		Value string
	}
	update.Before, update.After = entry(&ten, 1, "ten"), entry(&twenty, 1, "twenty")
	// Another type: the columns.
	columns, err := listeners.NewChange[price](&update)
	if err != nil || columns.Before != (price{1, "ten"}) || columns.After != (price{1, "twenty"}) {
		t.Errorf("NewChange[price] = %+v, %v; want the columns", columns, err)
	}
	// A type without columns.
	if got, err := listeners.NewChange[int](&update); err == nil {
		t.Errorf("NewChange[int] = %+v, want an error", got)
	}
}

func TestChangeAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := seatChange{Tx: listeners.Tx{Time: time.Now()}}
		time.Sleep(time.Minute)
		if got := c.Age(); got != time.Minute {
			t.Errorf("Age() = %s, want 1m", got)
		}
	})
}

// A log is a set of handlers that write what they hear.
type log []string

func (l *log) add(format string, args ...any) error {
	*l = append(*l, fmt.Sprintf(format, args...))
	return nil
}

func (l *log) handlers() listeners.Handlers[Seat] {
	heard := func(_ context.Context, c seatChange) error {
		return l.add("%s %s tx %d at %d: %s %d -> %s %d", c.Op, c.Key, c.Tx.ID, c.Position.Commit, c.Before.Seat, c.Before.Price, c.After.Seat, c.After.Price)
	}
	return listeners.Handlers[Seat]{
		OnRead: heard, OnCreate: heard, OnUpdate: heard, OnDelete: heard, OnMessage: heard,
		OnTruncate: func(_ context.Context, collection string) error { return l.add("truncate %s", collection) },
		OnReset:    func(context.Context) error { return l.add("reset") },
		OnLive:     func(context.Context) error { return l.add("live") },
		OnCommit: func(_ context.Context, tx listeners.Tx, at listeners.Position) error {
			return l.add("commit %d at %d.%d", tx.ID, at.Commit, at.Index)
		},
	}
}

// A story holds one of everything.
func story() []*listeners.Batch {
	create := listeners.Event{Op: listeners.Create, Schema: seats, After: seat(2, "B", 5, nil)}
	update := listeners.Event{Op: listeners.Update, Schema: seats, Before: seat(1, "A", 10, nil), After: seat(1, "A", 20, nil)}
	remove := listeners.Event{Op: listeners.Delete, Schema: seats, Before: seat(1, "A", 20, nil)}
	read := listeners.Event{Op: listeners.Read, Schema: seats, After: seat(1, "A", 10, nil)}
	truncate := listeners.Event{Op: listeners.Truncate, Schema: seats}
	return []*listeners.Batch{
		marker(listeners.Reset, 1), marker(listeners.Snapshot, 1, read), marker(listeners.Live, 1),
		batch(2, create, update, remove),
		part(3, 1, true, false, update), part(3, 2, false, true, truncate),
		batch(4, listeners.Event{Op: listeners.Message, Schema: seats, After: seat(3, "C", 7, nil)}),
		batch(5, listeners.Event{Op: 9, Schema: seats}), // of a later version
	}
}

func TestHandlersHearEachOperation(t *testing.T) {
	var got log
	h := got.handlers()
	for _, b := range story() {
		if err := h.OnBatch(t.Context(), b); err != nil {
			t.Fatalf("OnBatch(%s at %s): %v", b.Kind, b.Position, err)
		}
	}
	want := log{
		"reset", "read 1 tx 1 at 1:  0 -> A 10", "live",
		"create 2 tx 2 at 2:  0 -> B 5", "update 1 tx 2 at 2: A 10 -> A 20", "delete 1 tx 2 at 2: A 20 ->  0", "commit 2 at 2.0",
		"update 1 tx 3 at 3: A 10 -> A 20", "truncate public.seats", "commit 3 at 3.2",
		"message 3 tx 4 at 4:  0 -> C 7", "commit 4 at 4.0", "commit 5 at 5.0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the handlers heard (-want +got):\n%s", diff)
	}
}

func TestHandlersIgnoreWhatIsNil(t *testing.T) {
	for _, b := range story() {
		if err := (listeners.Handlers[Seat]{}).OnBatch(t.Context(), b); err != nil {
			t.Errorf("OnBatch(%s at %s) = %v", b.Kind, b.Position, err)
		}
	}
	// What nobody listens to is not decoded: this has no such columns.
	type other struct {
		Class int `db:"class"`
	}
	h := listeners.Handlers[other]{OnDelete: func(context.Context, listeners.Change[other]) error { return nil }}
	if err := h.OnBatch(t.Context(), batch(1, created(seats, 1))); err != nil {
		t.Errorf("OnBatch of a create without OnCreate = %v", err)
	}
	if err := h.OnBatch(t.Context(), batch(1, listeners.Event{Op: listeners.Delete, Schema: seats, Before: seat(1, "A", 1, nil)})); err == nil {
		t.Error("OnBatch of a delete that cannot be decoded returned nil")
	}
}

func TestHandlersErrorEndsTheBatch(t *testing.T) {
	failed := errors.New("no paper")
	// One name of a handler at a time fails; the batches are those of story.
	for i := range reflect.TypeFor[listeners.Handlers[Seat]]().NumField() {
		field := reflect.TypeFor[listeners.Handlers[Seat]]().Field(i)
		t.Run(field.Name, func(t *testing.T) {
			var heard log
			h := heard.handlers()
			reflect.ValueOf(&h).Elem().Field(i).Set(reflect.MakeFunc(field.Type, func([]reflect.Value) []reflect.Value {
				return []reflect.Value{reflect.ValueOf(&failed).Elem()}
			}))
			for _, b := range story() {
				before := len(heard)
				err := h.OnBatch(t.Context(), b)
				if err == nil {
					continue
				}
				if !errors.Is(err, failed) {
					t.Fatalf("OnBatch = %v, want the handler's error", err)
				}
				if slices.ContainsFunc(heard[before:], func(s string) bool { return strings.HasPrefix(s, "commit") }) {
					t.Errorf("OnCommit was called after the error: %q", heard[before:])
				}
				return
			}
			t.Error("its error was lost")
		})
	}
	calls := 0
	h := listeners.Handlers[Seat]{OnCreate: func(context.Context, seatChange) error { calls++; return failed }}
	b := batch(1, listeners.Event{Op: listeners.Create, Schema: seats, After: seat(1, "A", 1, nil)},
		listeners.Event{Op: listeners.Create, Schema: seats, After: seat(2, "B", 1, nil)})
	if err := h.OnBatch(t.Context(), b); !errors.Is(err, failed) || calls != 1 {
		t.Errorf("OnBatch = %v after %d calls, want the error of the first", err, calls)
	}
}

func TestChangeErrors(t *testing.T) {
	bad := seat(1, nil, 1, nil) // NULL does not fit Seat.Seat
	for name, e := range map[string]listeners.Event{
		"before": {Op: listeners.Update, Schema: seats, Before: bad, After: seat(1, "A", 1, nil)},
		"after":  {Op: listeners.Update, Schema: seats, Before: seat(1, "A", 1, nil), After: bad},
	} {
		if _, err := listeners.NewChange[Seat](&e); err == nil || !strings.Contains(err.Error(), "column public.seats.seat into listeners_test.Seat.Seat") {
			t.Errorf("NewChange with a bad %s = %v, want an error that names column and field", name, err)
		}
	}
}
