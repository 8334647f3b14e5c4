package listeners_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// subscribe adds a subscription that the test closes and waits for at its end.
func subscribe(t testing.TB, f *listeners.Feed, name string, l listeners.Listener, opts *listeners.SubscribeOptions, join listeners.Join) *listeners.Subscription {
	t.Helper()
	sub, err := f.Subscribe(name, l, opts, join)
	if err != nil {
		t.Fatalf("Subscribe(%q): %v", name, err)
	}
	t.Cleanup(func() {
		if err := sub.CloseWait(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("CloseWait of %q: %v", name, err)
		}
	})
	return sub
}

func only(collections ...string) *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{Collections: collections}
}

// put appends whole transactions with one created seat each.
func put(t testing.TB, f *listeners.Feed, commits ...uint64) {
	t.Helper()
	for _, c := range commits {
		if err := f.Reserve(t.Context()); err != nil {
			t.Fatalf("Reserve for %d: %v", c, err)
		}
		f.Append(batch(c, created(seats, int(c))))
	}
}

// heard writes what a recorder holds as one line: the kind unless it is
// changes, the commit, "(" and ")" for the first and last part of several, and
// the keys.
func heard(r *listenertest.Recorder) string {
	var out []string
	for _, b := range r.Batches() {
		var s strings.Builder
		if b.Kind != listeners.Changes {
			s.WriteString(b.Kind.String() + " ")
		}
		fmt.Fprintf(&s, "%d", b.Position.Commit)
		if !b.First || !b.Last {
			fmt.Fprintf(&s, ".%d", b.Position.Index)
		}
		s.WriteByte(':')
		if b.First {
			s.WriteByte('(')
		}
		for i, e := range b.Events {
			if i > 0 {
				s.WriteByte(' ')
			}
			s.WriteString(strings.TrimPrefix(e.Collection, "public.")[:1] + e.Key)
		}
		if b.Last {
			s.WriteByte(')')
		}
		out = append(out, s.String())
	}
	return strings.Join(out, ", ")
}

// wantHeard waits until every goroutine of the bubble waits, and compares.
func wantHeard(t testing.TB, r *listenertest.Recorder, want string) {
	t.Helper()
	synctest.Wait()
	if got := heard(r); got != want {
		t.Errorf("heard %s\nwant  %s", got, want)
	}
}

// A gate is a listener that records each batch once somebody lets it through.
type gate struct {
	listenertest.Recorder

	pass chan struct{}
}

func newGate() *gate { return &gate{pass: make(chan struct{})} }

func (g *gate) OnBatch(ctx context.Context, b *listeners.Batch) error {
	select {
	case <-g.pass:
		return g.Recorder.OnBatch(ctx, b)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func ended(s *listeners.Subscription) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}
