package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// publishLatest keeps a region's state in its bucket until the test ends or the
// result is called.
func publishLatest(t testing.TB, nc *nats.Conn, r *tickets) (stop func()) {
	t.Helper()
	f, err := jetstream.NewRegionLatest(nc, "trains", "tickets", "", &jetstream.Options{MaxPending: 64})
	if err != nil {
		t.Fatal(err)
	}
	return publishWith(t, f, r)
}

// mirrorLatest mirrors the bucket.
func mirrorLatest(t testing.TB, nc *nats.Conn) *tickets {
	t.Helper()
	m, s := mirrorOf(t, nc, jetstream.LatestStream("LATEST_TRAINS_TICKETS"), nil)
	sinktest.Start(t, s)
	return m
}

func TestMirrorsOfABucketEqualTheRegionAfterRandomHistories(t *testing.T) {
	t.Parallel()
	seeds := uint64(1)
	if os.Getenv("ROWCALL_FIREHOSE_FAULTS") != "" {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			dir := t.TempDir()
			s := natstest.RunWith(t, &natsserver.Options{Dir: dir})
			port := s.Port()
			r := random(t, 80+seed)
			w := new(wire)
			var mirrors []*tickets
			for generation := range 3 {
				g, region := process(t)
				for range 60 * (generation % 2) { // the first and the last begin empty
					change(t, g, region, r)
				}
				stop := publishLatest(t, connect(t, s), region)
				if generation == 0 {
					mirrors = append(mirrors, mirrorLatest(t, connect(t, s, nats.SetCustomDialer(w))))
				}
				for i := range 600 {
					change(t, g, region, r)
					switch {
					case i == 300:
						mirrors = append(mirrors, mirrorLatest(t, connect(t, s)))
					case i == 400:
						s.Stop()
						next, err := natstest.Start(t.Context(), &natsserver.Options{Dir: dir, Port: port})
						if err != nil {
							t.Fatalf("restart: %v", err)
						}
						s = next
					case i%150 == 149:
						equal(t, "the mirror", mirrors[0], region)
					case r.IntN(60) == 0:
						w.cut()
					}
				}
				mirrors = append(mirrors, mirrorLatest(t, connect(t, s)))
				for i, m := range mirrors {
					equal(t, "mirror "+strconv.Itoa(i), m, region)
				}
				stop()
			}
			s.Stop()
		})
	}
}

func openLatest(t testing.TB, nc *nats.Conn) *sinks.Firehose {
	t.Helper()
	f, err := jetstream.NewLatest(nc, "shop", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if err := f.Open(t.Context()); err != nil {
		t.Fatalf("Open: %v", err)
	}
	return f
}

// entries reads a bucket with the client library's own means.
func entries(t testing.TB, s *natstest.Server) []string {
	t.Helper()
	kv, err := natstest.JetStream(t, s).KeyValue(t.Context(), "LATEST_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(t.Context())
	if errors.Is(err, natsjs.ErrNoKeysFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	var lines []string
	for _, k := range keys {
		e, err := kv.Get(t.Context(), k)
		if err != nil {
			t.Fatalf("Get(%s): %v", k, err)
		}
		lines = append(lines, k+" "+string(e.Value()))
	}
	return lines
}

// change1 returns a transaction with one event.
func change1(commit uint64, op listeners.Op, before, after int) *listeners.Batch {
	e := listeners.Event{Op: op, Schema: seats, Position: at(commit, 0)}
	if before > 0 {
		e.Before = seat(before)
	}
	if after > 0 {
		e.After = seat(after)
	}
	b := transaction(commit, 0)
	b.Events, b.Position = []listeners.Event{e}, e.Position
	return b
}

// Any KV client reads the entries, sees deleted keys as deleted, and a row whose
// key has changed under its new key alone.
func TestBucketIsAKeyValueStore(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	f := openLatest(t, connect(t, s))
	store(t, f, []*listeners.Batch{
		transaction(1, 3), // keys 1000 to 1002
		change1(2, listeners.Delete, 1001, 0),
		change1(3, listeners.Update, 1002, 1005),
	})
	want := []string{
		`public.seats.1000 {"op":"create","key":{"id":1000},"before":null,"after":{"id":1000,"seat":"10E"}}`,
		`public.seats.1005 {"op":"create","key":{"id":1005},"before":null,"after":{"id":1005,"seat":"15D"}}`,
	}
	if diff := cmp.Diff(want, entries(t, s)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}

	store(t, f, []*listeners.Batch{change1(4, listeners.Truncate, 0, 0), transaction(5, 1)})
	want = []string{`public.seats.5000 {"op":"create","key":{"id":5000},"before":null,"after":{"id":5000,"seat":"50C"}}`}
	if diff := cmp.Diff(want, keysOnly(entries(t, s), "-control")); diff != "" {
		t.Errorf("entries after a truncate (-want +got):\n%s", diff)
	}

	store(t, f, []*listeners.Batch{reset(6), snapshot(6, 1), live(6)})
	want = []string{`public.seats.6000 {"op":"read","key":{"id":6000},"before":null,"after":{"id":6000,"seat":"60A"}}`}
	if diff := cmp.Diff(want, keysOnly(entries(t, s), "-control")); diff != "" {
		t.Errorf("entries after a reset (-want +got):\n%s", diff)
	}
}

// keysOnly leaves out the markers.
func keysOnly(lines []string, prefix string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
}

// Each process takes up where the one before it died, is told everything from
// the beginning, and stores only what is missing.
func TestBucketSurvivesCrashes(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	r := random(t, 90)
	var batches []*listeners.Batch
	held := make(map[int]bool)
	for commit := uint64(1); commit < 400; commit++ {
		k, to := 1+r.IntN(20), 1+r.IntN(20)
		switch {
		case r.IntN(40) == 0:
			batches = append(batches, change1(commit, listeners.Truncate, 0, 0))
			clear(held)
		case !held[k]:
			batches = append(batches, change1(commit, listeners.Create, 0, k))
			held[k] = true
		case r.IntN(3) == 0:
			batches = append(batches, change1(commit, listeners.Delete, k, 0))
			delete(held, k)
		case !held[to]:
			batches = append(batches, change1(commit, listeners.Update, k, to))
			delete(held, k)
			held[to] = true
		default:
			batches = append(batches, change1(commit, listeners.Update, k, k))
		}
	}
	var last listeners.Position
	for i := 1; i <= 10; i++ {
		f := openLatest(t, connect(t, s))
		if got := f.Stored(); got.Compare(batches[len(batches)-1].Position) > 0 || got.Compare(last) < 0 {
			t.Errorf("Stored after Open = %s, before that %s", got, last)
		}
		if err := feed(t.Context(), f, batches[:len(batches)*i/10]); err != nil {
			t.Fatal(err)
		}
		if i == 10 {
			flush(t, f)
		}
		last = f.Stored()
		f.Close()
	}
	if want := batches[len(batches)-1].Position; last != want {
		t.Errorf("Stored at the end = %s, want %s", last, want)
	}
	var want []string
	for k := range held {
		want = append(want, fmt.Sprintf("public.seats.%d", k))
	}
	slices.Sort(want)
	var got []string
	for _, l := range keysOnly(entries(t, s), "-control") {
		key, _, _ := strings.Cut(l, " ")
		got = append(got, key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestBucketErrors(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	if _, err := jetstream.NewLatest(nc, "shop", "", &jetstream.Options{Stream: "OTHER"}); err == nil {
		t.Error("NewLatest with another stream = nil, want an error")
	}
	keyless := listeners.NewSchema("shop", "public", "log", []listeners.Column{{Name: "line"}})
	b := transaction(1, 0)
	b.Events = []listeners.Event{{Op: listeners.Create, Schema: keyless, Position: at(1, 0)}}
	f := openLatest(t, nc)
	if err := f.OnBatch(t.Context(), b); err == nil || !strings.Contains(err.Error(), "public.log") {
		t.Errorf("OnBatch of a table without a key = %v, want an error that names it", err)
	}

	js := natstest.JetStream(t, s)
	if _, err := js.CreateKeyValue(t.Context(), natsjs.KeyValueConfig{Bucket: "DEEP", History: 5}); err != nil {
		t.Fatal(err)
	}
	f, err := jetstream.NewLatest(nc, "shop", "DEEP", nil)
	if err != nil {
		t.Fatal(err)
	}
	var wrong *sinks.PlaceError
	if err := f.Open(t.Context()); !errors.As(err, &wrong) {
		t.Errorf("Open of a bucket with a history = %v, want a PlaceError", err)
	}
	// One that somebody made with the usual means will do.
	if _, err := js.CreateKeyValue(t.Context(), natsjs.KeyValueConfig{Bucket: "FLAT"}); err != nil {
		t.Fatal(err)
	}
	if f, err = jetstream.NewLatest(nc, "shop", "FLAT", nil); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Open(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("Open of a bucket = %v", err)
	}
	store(t, f, []*listeners.Batch{transaction(1, 3)})
}
