package kafka_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// tables are those of spread histories.
var tables = []*listeners.Schema{sinktest.Seats, table("public", "trains"), table("public", "cars"), table("audit", "log")}

func table(namespace, name string) *listeners.Schema {
	return listeners.NewSchema(sinktest.Database, namespace, name, []listeners.Column{
		{Name: "id", Type: "bigint", Key: true}, {Name: "seat", Type: "text"},
	})
}

// spread is a history of several tables. The last of them is written late and
// seldom.
func spread(r *rand.Rand, events int) []*listeners.Batch {
	batches := sinktest.History(r, events)
	for n, b := range batches {
		for i := range b.Events {
			of := len(tables) - 1
			if n > len(batches)/2 && r.IntN(200) == 0 {
				of++
			}
			b.Events[i].Schema = tables[r.IntN(of)]
			if of == len(tables) {
				b.Events[i].Schema = tables[of-1]
			}
		}
	}
	return batches
}

func source(t testing.TB, c *cluster, opts *sinks.SourceOptions, client ...kgo.Opt) *sinks.Source {
	t.Helper()
	var o sinks.SourceOptions
	if opts != nil {
		o = *opts
	}
	if os.Getenv("ROWCALL_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := kafka.NewSource(c.url(), sinktest.Database, &o, client...)
	if err != nil {
		t.Fatalf("NewSource: %v", err)
	}
	return s
}

// readAll returns what a source tells up to the tip.
func readAll(t testing.TB, c *cluster, opts sinks.SourceOptions, of *listeners.SubscribeOptions) ([]listenertest.Batch, error) {
	t.Helper()
	r := new(listenertest.Recorder)
	opts.UntilTip = true
	s := source(t, c, &opts)
	sinktest.Subscribe(t, s, r, of)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := s.Run(ctx)
	if ctx.Err() != nil {
		t.Fatal("Run does not reach the tip")
	}
	return r.Batches(), err
}

func wantTold(t testing.TB, what string, want []*listeners.Batch, got []listenertest.Batch) {
	t.Helper()
	if diff := cmp.Diff(sinktest.Told(sinktest.Recorded(want...)), sinktest.Told(got)); diff != "" {
		if len(diff) > 4000 {
			diff = diff[:4000] + "…"
		}
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// waitFor waits until a recorder has heard a position.
func waitFor(t testing.TB, r *listenertest.Recorder, at listeners.Position) []listenertest.Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := r.Wait(ctx, func(b []listenertest.Batch) bool {
		return len(b) > 0 && b[len(b)-1].Position.Compare(at) >= 0
	})
	if err != nil {
		t.Fatalf("%s was not heard within a minute: %v", at, err)
	}
	return got
}

// A listener of the topics hears the batches that one of the database hears.
func TestSourceTellsTheBatchesOfTheDatabase(t *testing.T) {
	t.Parallel()
	c := run(t)
	batches := spread(random(t, 20), 3000)
	store(t, open(t, c, nil), batches)
	got, err := readAll(t, c, sinks.SourceOptions{Start: sinks.Start{Oldest: true}}, nil)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	wantTold(t, "batches", sinktest.Whole(batches), got)
}

func TestSourceStarts(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, nil)
	batches := []*listeners.Batch{sinktest.Transaction(1, 3), sinktest.Transaction(2, 3)}
	store(t, f, batches)
	<-time.After(5 * time.Millisecond) // the time of records has milliseconds
	between := time.Now()
	<-time.After(5 * time.Millisecond)
	batches = append(batches, sinktest.Transaction(5, 2), sinktest.Transaction(6, 4))
	store(t, f, batches[2:])
	all := sinktest.Events(sinktest.Recorded(batches...))

	for name, tc := range map[string]struct {
		start sinks.Start
		want  []string
		part  bool // the first batch is no First
	}{
		"oldest":               {sinks.Start{Oldest: true}, all, false},
		"now":                  {sinks.Start{}, nil, false},
		"time":                 {sinks.Start{Time: between}, all[6:], false},
		"time before all":      {sinks.Start{Time: between.Add(-time.Hour)}, all, false},
		"time to come":         {sinks.Start{Time: between.Add(time.Hour)}, nil, false},
		"after a position":     {sinks.Start{After: sinktest.At(2, 2)}, all[6:], false},
		"after one within":     {sinks.Start{After: sinktest.At(2, 0)}, all[4:], true},
		"after one in between": {sinks.Start{After: sinktest.At(3, 7)}, all[6:], false},
		"after the last":       {sinks.Start{After: sinktest.At(6, 3)}, nil, false},
		"after one to come":    {sinks.Start{After: sinktest.At(9, 0)}, nil, false},
		"before all":           {sinks.Start{After: sinktest.At(0, 1)}, all, false},
		"position before time": {sinks.Start{After: sinktest.At(2, 2), Oldest: true}, all[6:], false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(t, c, sinks.SourceOptions{Start: tc.start}, nil)
			if err != nil {
				t.Fatalf("Run: %v", err)
			}
			if diff := cmp.Diff(tc.want, sinktest.Events(got)); diff != "" {
				t.Errorf("events from %+v (-want +got):\n%s", tc.start, diff)
			}
			if len(tc.want) > 0 && got[0].First == tc.part {
				t.Errorf("the first batch's First = %t, want %t", got[0].First, !tc.part)
			}
			lives := 0
			for _, b := range got {
				if b.Kind == listeners.Live {
					lives++
				}
			}
			if want := map[bool]int{false: 1}[tc.start.IsNow()]; lives != want {
				t.Errorf("Live came %d times from %+v, want %d", lives, tc.start, want)
			}
		})
	}
}

// It follows while transactions are written, to topics that are there and new
// ones, and goes on from any of them.
func TestSourceFollowsAndResumes(t *testing.T) {
	t.Parallel()
	c := run(t)
	r := random(t, 21)
	batches := spread(r, 3000)
	heard := new(listenertest.Recorder)
	s := source(t, c, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	sinktest.Subscribe(t, s, heard, nil)
	stop := sinktest.Start(t, s)
	f := open(t, c, nil)
	for from := 0; from < len(batches); {
		to := min(from+1+r.IntN(12), len(batches))
		for to < len(batches) && !batches[to-1].Last {
			to++
		}
		store(t, f, batches[from:to])
		from = to
	}
	want := sinktest.Whole(batches)
	got := waitFor(t, heard, want[len(want)-1].Position)
	if err := stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	// Live comes wherever the tip was when Run began.
	live := func(b *listeners.Batch) bool { return b.Kind == listeners.Live }
	liveTold := func(b listenertest.Batch) bool { return b.Kind == listeners.Live }
	if diff := cmp.Diff(sinktest.Events(sinktest.Recorded(slices.DeleteFunc(slices.Clone(want), live)...)), sinktest.Events(slices.DeleteFunc(got, liveTold))); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	all := sinktest.Events(sinktest.Recorded(want...))
	for range 6 {
		n := r.IntN(len(want) - 1)
		after := want[n].Position
		got, err := readAll(t, c, sinks.SourceOptions{Start: sinks.Start{After: after}}, nil)
		if err != nil {
			t.Fatalf("Run after %s: %v", after, err)
		}
		rest := sinktest.Events(sinktest.Recorded(want[n+1:]...))
		if diff := cmp.Diff(rest, sinktest.Events(got)); diff != "" {
			t.Errorf("events after %s, %d of %d (-want +got):\n%s", after, len(rest), len(all), diff)
		}
	}
}

// A subscription that asks for the present state gets it, and every later
// change once, whenever it comes.
func TestSourceTellsThePresentState(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, nil)
	batches := spread(random(t, 22), 2000)
	half := len(batches) / 2
	for !batches[half-1].Last {
		half++
	}
	store(t, f, batches[:half])
	s := source(t, c, nil)
	recorders := []*listenertest.Recorder{new(listenertest.Recorder)}
	sinktest.Subscribe(t, s, recorders[0], &listeners.SubscribeOptions{Current: true})
	sinktest.Start(t, s)
	for i, b := range batches[half:] {
		store(t, f, []*listeners.Batch{b})
		if i%20 == 0 && len(recorders) < 5 {
			r := new(listenertest.Recorder)
			sinktest.Subscribe(t, s, r, &listeners.SubscribeOptions{Current: true})
			recorders = append(recorders, r)
		}
	}
	want := make(map[string]string)
	add := func(state map[string]string, b *listenertest.Batch) {
		if b.Kind == listeners.Reset {
			clear(state)
		}
		for _, e := range b.Events {
			if e.Op == listeners.Truncate {
				for k := range state {
					if strings.HasPrefix(k, e.Collection+" ") {
						delete(state, k)
					}
				}
				continue
			}
			state[e.Collection+" "+e.Key] = e.After
		}
	}
	var end listeners.Position
	for _, b := range sinktest.Recorded(batches...) {
		add(want, &b)
		if len(b.Events) > 0 {
			end = b.Position
		}
	}
	for i, r := range recorders {
		waitFor(t, r, end)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := r.Wait(ctx, func(b []listenertest.Batch) bool { // a state may be told at the end
			last := b[len(b)-1].Kind
			return last == listeners.Changes || last == listeners.Live
		})
		cancel()
		if err != nil {
			t.Errorf("subscription %d: the state is not told to its end: %v", i, err)
		}
		state, seen := make(map[string]string), make(map[listeners.Position]bool)
		for _, b := range got {
			add(state, &b)
			for _, e := range b.Events {
				if seen[e.Position] {
					t.Errorf("subscription %d has heard %s twice", i, e)
				}
				seen[e.Position] = true
			}
		}
		if diff := cmp.Diff(want, state); diff != "" {
			t.Errorf("subscription %d (-want +got):\n%s", i, diff)
		}
	}
}

func admin(t testing.TB, c *cluster) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// purge deletes the records of a topic up to the end of what is there.
func purge(t testing.TB, c *cluster, topic string) {
	t.Helper()
	a := admin(t, c)
	ends, err := a.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
		t.Fatal(err)
	}
}

// Retention takes what was to be read. What is left begins with a reset, so all
// subscriptions are told the state anew; or it does not, and Run says so.
func TestSourceWhenHistoryIsGone(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, nil)
	store(t, f, []*listeners.Batch{sinktest.Transaction(1, 30)})
	purge(t, c, seatsTopic)
	for name, start := range map[string]sinks.Start{"position": {After: sinktest.At(1, 0)}, "state": {}} {
		_, err := readAll(t, c, sinks.SourceOptions{Start: start}, &listeners.SubscribeOptions{Current: start.IsNow()})
		if _, gone := errors.AsType[*sinks.HistoryError](err); !gone {
			t.Errorf("%s: Run = %v, want a HistoryError", name, err)
		}
	}
	store(t, f, []*listeners.Batch{sinktest.Reset(4), sinktest.Snapshot(4, 50), sinktest.Transaction(5, 2)})
	for name, start := range map[string]sinks.Start{"position": {After: sinktest.At(1, 0)}, "state": {}} {
		got, err := readAll(t, c, sinks.SourceOptions{Start: start}, &listeners.SubscribeOptions{Current: start.IsNow()})
		if err != nil {
			t.Fatalf("%s: Run = %v", name, err)
		}
		if len(got) != 3 || got[0].Kind != listeners.Reset || got[1].Kind != listeners.Snapshot || len(got[1].Events) != 48 || got[2].Kind != listeners.Live {
			t.Errorf("%s: batches = %v, want a reset, 48 rows, and Live", name, sinktest.Told(got))
		}
	}
}

func TestSourceErrors(t *testing.T) {
	t.Parallel()
	c := run(t)
	_, err := kafka.NewSource("kafka://u:secret@h:x:y", "", &sinks.SourceOptions{MaxBytes: -1, Start: sinks.Start{Sequence: 3}})
	for _, want := range []string{"host", "name", "MaxBytes", "Sequence"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("NewSource = %v, want an error that names %s and no password", err, want)
		}
	}
	store(t, open(t, c, &kafka.Options{NoTransactions: true}), []*listeners.Batch{sinktest.Transaction(1, 3)})
	_, err = readAll(t, c, sinks.SourceOptions{Start: sinks.Start{Oldest: true}}, nil)
	if wrong, ok := errors.AsType[*kafka.TopicError](err); !ok || wrong.Place != "topic "+seatsTopic {
		t.Errorf("Run of what was written without transactions = %v, want a TopicError for %s", err, seatsTopic)
	}
}

// eventually polls.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-timeout.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
