package grid_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestInsertRefusesAKeyThatExists(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	pos, err := r.Insert(t.Context(), "a", 1)
	if err != nil || pos != r.Position() {
		t.Fatalf("Insert(a) = %s, %v; want %s, nil", pos, err, r.Position())
	}
	_, err = r.Insert(t.Context(), "a", 2)
	var exists *grid.ExistsError
	if !errors.As(err, &exists) || exists.Key != "a" || exists.Version != pos {
		t.Errorf("second Insert(a) = %v, want an ExistsError of key a since %s", err, pos)
	}
	if v, _ := r.Get("a"); v != 1 || r.Position() != pos {
		t.Errorf("after a refused Insert the region has %d at %s, want 1 at %s", v, r.Position(), pos)
	}
}

func TestCompareAndPutWantsTheVersionThatWasRead(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	first, err := r.CompareAndPut(t.Context(), "a", listeners.Position{}, 1)
	if err != nil {
		t.Fatalf("CompareAndPut of an absent key with the zero version = %v, want nil", err)
	}
	read, ok := r.Entry("a")
	if want := (grid.Entry[string, int]{Key: "a", Value: 1, Version: first}); !ok || read != want {
		t.Fatalf("Entry(a) = %v, %t; want %v", read, ok, want)
	}
	second := put(t, r, "a", 2)
	_, err = r.CompareAndPut(t.Context(), "a", first, 3)
	var stale *grid.VersionError
	if !errors.As(err, &stale) || stale.Key != "a" || stale.Want != first || stale.Have != second {
		t.Errorf("CompareAndPut with an old version = %v, want a VersionError with %s and %s", err, first, second)
	}
	if _, err := r.CompareAndPut(t.Context(), "a", second, 4); err != nil {
		t.Errorf("CompareAndPut with the present version = %v, want nil", err)
	}
	if _, _, err := r.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CompareAndPut(t.Context(), "a", second, 5); !errors.As(err, &stale) || !stale.Have.IsZero() {
		t.Errorf("CompareAndPut of a deleted key = %v, want a VersionError that has no version", err)
	}
	put(t, r, "a", 1)
	if _, err := r.CompareAndPut(t.Context(), "a", first, 6); !errors.As(err, &stale) {
		t.Errorf("CompareAndPut of a key made again = %v, want a VersionError", err)
	}
}

func TestUpdateReadsAndWritesWithNobodyInBetween(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	_, err := r.Update(t.Context(), "n", func(int) (int, error) { t.Error("called for an absent key"); return 0, nil })
	if !errors.Is(err, grid.ErrNotFound) {
		t.Errorf("Update of an absent key = %v, want ErrNotFound", err)
	}
	put(t, r, "n", 0)
	done := make(chan error)
	for range 4 {
		go func() {
			for range 250 {
				if _, err := r.Update(t.Context(), "n", func(n int) (int, error) { return n + 1, nil }); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Errorf("Update = %v, want nil", err)
		}
	}
	if n, _ := r.Get("n"); n != 1000 {
		t.Errorf("after 1000 concurrent increments the value is %d", n)
	}
}

func TestUpdateStoresNothingOnErrorOrPanic(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	pos := put(t, r, "a", 1)
	no := errors.New("no")
	if _, err := r.Update(t.Context(), "a", func(int) (int, error) { return 2, no }); !errors.Is(err, no) {
		t.Errorf("Update = %v, want the function's error", err)
	}
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("Update with a function that panics: recovered %v, want its boom", p)
			}
		}()
		_, _ = r.Update(t.Context(), "a", func(int) (int, error) { panic("boom") })
	}()
	if v, _ := r.Get("a"); v != 1 || r.Position() != pos {
		t.Errorf("the region has %d at %s, want 1 at %s", v, r.Position(), pos)
	}
	put(t, r, "a", 2) // the lock is free
}

func TestPutAllIsOneBatchWithTheNetEffect(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	put(t, r, 1, 10)
	rec := new(listenertest.Recorder)
	subscribe(t, r, rec, nil)
	pos, err := r.PutAll(t.Context(), func(yield func(int, int) bool) {
		_ = yield(3, 30) && yield(2, 20) && yield(1, 11) && yield(3, 31)
	})
	if err != nil || pos != r.Position() || pos.Commit != 2 {
		t.Fatalf("PutAll() = %s, %v; want %s, the second transaction", pos, err, r.Position())
	}
	if _, err := rec.WaitEvents(deadline(t), 3); err != nil {
		t.Fatal(err)
	}
	b := rec.Batches()
	if len(b) != 1 || b[0].Position != pos || b[0].Tx.ID != 2 || !b[0].First || !b[0].Last {
		t.Fatalf("%d batches, the first %+v; want one whole transaction at %s", len(b), b[0], pos)
	}
	var got []string
	for i := range b[0].Events {
		e := b[0].Events[i]
		if want := (listeners.Position{Epoch: pos.Epoch, Commit: 2, Index: uint32(i)}); e.Position != want {
			t.Errorf("event %d is at %s, want %s", i, e.Position, want)
		}
		got = append(got, e.String())
	}
	want := []string{
		`create r/2: null -> {"key":2,"value":20}`, `update r/1: {"key":1,"value":10} -> {"key":1,"value":11}`,
		`create r/3: null -> {"key":3,"value":31}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if e, _ := r.Entry(3); e.Version != pos || r.Len() != 3 {
		t.Errorf("Len() = %d, Entry(3) = %v; want 3, version %s", r.Len(), e, pos)
	}
	if pos, err := r.PutAll(t.Context(), maps.All(map[int]int{})); err != nil || !pos.IsZero() {
		t.Errorf("PutAll of nothing = %s, %v; want zero, nil", pos, err)
	}
	if next := put(t, r, 1, 1); next.Commit != 3 || next.Index != 0 {
		t.Errorf("the next put is at %s, want commit 3", next)
	}
}

func TestClearIsOneEventAndJoinersAndMirrorsFollow(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	if pos, err := r.Clear(t.Context()); err != nil || !pos.IsZero() {
		t.Errorf("Clear of an empty region = %s, %v; want zero, nil", pos, err)
	}
	for k := range 100 {
		put(t, r, k, k)
	}
	before := r.Snapshot()
	m, err := grid.Mirror[int, int](g, "m", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, m)
	rec := new(listenertest.Recorder)
	subscribe(t, r, rec, nil)
	pos, err := r.Clear(t.Context())
	if err != nil || pos.Commit != 101 || r.Len() != 0 || r.Position() != pos {
		t.Errorf("Clear() = %s, %v; then Len() = %d at %s; want commit 101, 0 keys", pos, err, r.Len(), r.Position())
	}
	put(t, r, 7, 70)
	if _, err := rec.WaitEvents(deadline(t), 2); err != nil {
		t.Fatal(err)
	}
	e := rec.Batches()[0].Events[0]
	if e.Op != listeners.Truncate || e.Cause != listeners.CauseClear || e.Before != "null" || e.After != "null" {
		t.Errorf("the event of Clear is %s, cause %s; want a truncate without records, cause clear", e.Op, e.Cause)
	}
	wait(t, "the mirror", func() bool { return m.Position() == r.Position() })
	for name, got := range map[string]map[int]int{"region": maps.Collect(r.All()), "mirror": maps.Collect(m.All())} {
		if want := map[int]int{7: 70}; !maps.Equal(got, want) {
			t.Errorf("the %s holds %v, want %v", name, got, want)
		}
	}
	if before.Len() != 100 {
		t.Errorf("a snapshot from before Clear has %d keys, want 100", before.Len())
	}
}

func TestRangeAndFromReadASnapshotInOrder(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	for i, k := range []string{"b", "", "a\x00", "ab", "a", "\xff"} {
		put(t, r, k, i)
	}
	s := r.Snapshot()
	put(t, r, "aa", 9)
	all := []string{"", "a", "a\x00", "ab", "b", "\xff"}
	keys := func(from, to string) []string {
		var got []string
		for k := range s.Range(from, to) {
			got = append(got, k)
		}
		return got
	}
	for i, from := range all {
		var got []string
		for k := range s.From(from) {
			got = append(got, k)
		}
		if !slices.Equal(got, all[i:]) {
			t.Errorf("From(%q) = %q, want %q", from, got, all[i:])
		}
		for j, to := range all {
			if got, want := keys(from, to), all[i:max(i, j)]; !slices.Equal(got, want) {
				t.Errorf("Range(%q, %q) = %q, want %q", from, to, got, want)
			}
		}
	}
	if got, want := keys("a\x00\x00", "aa"), []string(nil); !slices.Equal(got, want) {
		t.Errorf("Range between keys = %q, want %q", got, want)
	}
	var now []string
	for k := range r.Range("aa", "b") {
		now = append(now, k)
	}
	if want := []string{"aa", "ab"}; !slices.Equal(now, want) {
		t.Errorf("the region's Range(aa, b) = %q, want %q", now, want)
	}
	for range r.From("a") {
		break // must not go on
	}
}

func TestSnapshotsDoNotChange(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	pos := put(t, r, 1, 1)
	s := r.Snapshot()
	put(t, r, 1, 2)
	put(t, r, 2, 2)
	if v, ok := s.Get(1); v != 1 || !ok || s.Len() != 1 || s.Position() != pos || !maps.Equal(maps.Collect(s.All()), map[int]int{1: 1}) {
		t.Errorf("the snapshot has Get(1) = %d, %t, Len() = %d, Position() = %s; want 1, true, 1, %s", v, ok, s.Len(), s.Position(), pos)
	}
	if _, ok := s.Get(2); ok {
		t.Error("the snapshot has a key that was put later")
	}
	if v, ok := r.Peek(2); v != 2 || !ok {
		t.Errorf("Peek(2) = %d, %t; want 2", v, ok)
	}
}

func TestEveryWriteFailsOnMirrorsAndClosedRegions(t *testing.T) {
	g := newGrid(t)
	closed := open[int, int](t, g, "closed", nil)
	put(t, closed, 1, 1)
	src := open[int, int](t, g, "src", nil)
	m, err := grid.Mirror[int, int](g, "m", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		r    *grid.Region[int, int]
		want error
	}{"mirror": {m, grid.ErrMirror}, "closed": {closed, grid.ErrClosed}} {
		ctx := t.Context()
		one := maps.All(map[int]int{1: 2})
		calls := map[string]func() error{
			"insert":          func() error { _, err := tc.r.Insert(ctx, 2, 2); return err },
			"compare and put": func() error { _, err := tc.r.CompareAndPut(ctx, 2, listeners.Position{}, 2); return err },
			"update":          func() error { _, err := tc.r.Update(ctx, 1, func(v int) (int, error) { return v, nil }); return err },
			"put all":         func() error { _, err := tc.r.PutAll(ctx, one); return err },
			"clear":           func() error { _, err := tc.r.Clear(ctx); return err },
		}
		for call, do := range calls {
			if err := do(); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), "grid: "+call) {
				t.Errorf("%s: %s = %v, want %v and the call's name", name, call, err, tc.want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := src.Insert(ctx, 1, 1); !errors.Is(err, context.Canceled) || src.Len() != 0 {
		t.Errorf("Insert with an ended context = %v, Len() = %d; want its cause, 0", err, src.Len())
	}
}
