package sinktest

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
)

// A SourceServer is a broker with a firehose of [Database].
type SourceServer interface {
	// Source returns a source that reads the firehose and is not running.
	Source(t testing.TB, opts *sinks.SourceOptions) *sinks.Source
	// Store returns when the batches are stored.
	Store(t testing.TB, batches []*listeners.Batch)
}

// Sources are the tests of what a source does with the names and positions of
// subscriptions. A server is given empty.
func Sources(t *testing.T, server func(testing.TB) SourceServer) {
	t.Run("names go on where they were", func(t *testing.T) { sourceNames(t, server(t)) })
	t.Run("a name that has heard nothing", func(t *testing.T) { sourceQuietName(t, server(t)) })
	t.Run("from a position", func(t *testing.T) { sourceFrom(t, server(t)) })
}

// transactions are so many, of one seat or more.
func transactions(r *rand.Rand, from, n uint64) []*listeners.Batch {
	var all []*listeners.Batch
	for commit := range n {
		all = append(all, Transaction(from+commit, 1+r.IntN(12)))
	}
	return all
}

// hear waits until a recorder has heard so many events.
func hear(t testing.TB, r *listenertest.Recorder, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.Wait(ctx, func(b []listenertest.Batch) bool { return len(Events(b)) >= n }); err != nil {
		t.Fatalf("%d events were not heard in %s: %v", n, patience, err)
	}
}

// Processes come and go under one name. Each subscribes before its source runs or
// later, and all of them together hear every transaction once and whole, although
// each source begins at the end.
func sourceNames(t *testing.T, server SourceServer) {
	r := rand.New(rand.NewPCG(40, 0))
	positions := listeners.NewFilePositions(t.TempDir())
	server.Store(t, transactions(r, 1, 3)) // from before the name
	var all []*listeners.Batch
	var got []string
	for generation := range 5 {
		s := server.Source(t, &sinks.SourceOptions{UntilTip: generation == 3})
		heard := new(listenertest.Recorder)
		opts := &listeners.SubscribeOptions{Positions: positions, SaveInterval: time.Millisecond}
		var sub *listeners.Subscription
		join := func() {
			var err error
			if sub, err = s.Subscribe("name", heard, opts); err != nil {
				t.Fatalf("Subscribe: %v", err)
			}
		}
		store := func(n uint64) {
			next := transactions(r, uint64(10+len(all)), n)
			server.Store(t, next)
			all = append(all, next...)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		run := func() {
			go func() { ended <- s.Run(ctx) }()
			select {
			case <-s.Ready():
			case err := <-ended:
				t.Fatalf("Run = %v before it was ready", err)
			}
		}
		late := generation%2 == 1 && generation != 3
		if generation > 0 {
			store(5) // while nobody hears
		}
		if !late {
			join()
		}
		run()
		if generation != 3 {
			store(4)
		}
		if late {
			join()
			store(3)
		}
		hear(t, heard, len(Events(Recorded(all...)))-len(got))
		if generation == 3 {
			if err := <-ended; err != nil {
				t.Errorf("Run up to the tip = %v", err)
			}
		} else {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		}
		cancel()
		if err := sub.Err(); err != nil {
			t.Errorf("generation %d: the subscription ended with %v", generation, err)
		}
		for _, b := range heard.Batches() {
			if b.Kind == listeners.Changes && (!b.First || !b.Last) {
				t.Errorf("generation %d: %s is not whole", generation, b.Position)
			}
		}
		got = append(got, Events(heard.Batches())...)
	}
	if diff := cmp.Diff(Events(Recorded(all...)), got); diff != "" {
		t.Errorf("events of all generations (-stored +heard):\n%s", diff)
	}
}

// A name that has heard nothing yet goes on from where it began.
func sourceQuietName(t *testing.T, server SourceServer) {
	r := rand.New(rand.NewPCG(41, 0))
	positions := listeners.NewFilePositions(t.TempDir())
	server.Store(t, transactions(r, 1, 3))
	opts := &listeners.SubscribeOptions{Positions: positions}
	first := server.Source(t, &sinks.SourceOptions{UntilTip: true})
	if _, err := first.Subscribe("name", new(listenertest.Recorder), opts); err != nil {
		t.Fatal(err)
	}
	if err := first.Run(t.Context()); err != nil {
		t.Fatalf("Run = %v", err)
	}
	missed := transactions(r, 10, 4)
	server.Store(t, missed)
	heard := new(listenertest.Recorder)
	second := server.Source(t, &sinks.SourceOptions{UntilTip: true})
	if _, err := second.Subscribe("name", heard, opts); err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err != nil {
		t.Fatalf("Run = %v", err)
	}
	if diff := cmp.Diff(Events(Recorded(missed...)), Events(heard.Batches())); diff != "" {
		t.Errorf("events (-missed +heard):\n%s", diff)
	}
}

// Subscriptions of one source go on from positions of their own.
func sourceFrom(t *testing.T, server SourceServer) {
	r := rand.New(rand.NewPCG(42, 0))
	all := transactions(r, 1, 12)
	all[4] = Transaction(5, 9)
	server.Store(t, all)
	s := server.Source(t, &sinks.SourceOptions{UntilTip: true})
	want := make(map[string][]string)
	heard := make(map[string]*listenertest.Recorder)
	for name, from := range map[string]listeners.Position{
		"the first":            all[0].Position,
		"in a transaction":     At(5, 3),
		"the last":             all[11].Position,
		"another, from before": At(0, 1),
	} {
		heard[name] = new(listenertest.Recorder)
		if _, err := s.Subscribe(name, heard[name], &listeners.SubscribeOptions{From: from}); err != nil {
			t.Fatal(err)
		}
		want[name] = slices.DeleteFunc(Events(Recorded(all...)), func(line string) bool { return line[len(line)-len(from.String()):] <= from.String() })
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("Run = %v", err)
	}
	for name, of := range heard {
		if diff := cmp.Diff(want[name], Events(of.Batches()), cmp.Transformer("empty", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
