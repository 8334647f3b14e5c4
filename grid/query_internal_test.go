package grid

import (
	"context"
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

// While no query has a listener, the region does not hear for any.
func TestQueriesLeaveNothingBehind(t *testing.T) {
	g := New("g", nil)
	r, err := Open[int, int](g, "r", nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewIndex(r, "value", func(_, v int) (int, bool) { return v, true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		var subs []*listeners.Subscription
		for i := range 30 {
			q, err := x.Query("value", i%20, nil) // so that some share a value
			if i%3 == 0 {
				q, err = NewQuery(r, "where", func(_, v int) bool { return v == i }, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := q.Subscribe("s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil }), nil)
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, s)
		}
		if n := len(r.feed.Subscriptions()); n != 1 {
			t.Errorf("round %d: the region has %d subscriptions for 30 queries, want 1", round, n)
		}
		hears := r.queries.sub
		for i := range subs {
			if _, err := r.Put(t.Context(), i, i); err != nil {
				t.Fatal(err)
			}
			if err := subs[i*7%len(subs)].CloseWait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-hears.Done():
		case <-t.Context().Done():
		}
		qs := &r.queries
		qs.mu.Lock()
		if qs.sub != nil || len(qs.active)+len(qs.values)+len(qs.where)+len(qs.touched) != 0 || len(r.feed.Subscriptions()) != 0 {
			t.Errorf("round %d: without listeners there are %d queries, %d indexes, %d functions, %d subscriptions",
				round, len(qs.active), len(qs.values), len(qs.where), len(r.feed.Subscriptions()))
		}
		qs.mu.Unlock()
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
