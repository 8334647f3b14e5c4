package jetstream_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func random(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestOrderedAndComplete(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]*jetstream.Options{
		"defaults":      nil,
		"narrow window": {MaxPending: 3},
		"few bytes":     {MaxPendingBytes: 2000},
		"message ids":   {MsgID: true},

		"fast ingest":                     {FastIngest: jetstream.FastIngestAlways},
		"fast ingest and a narrow window": {FastIngest: jetstream.FastIngestAlways, MaxPending: 3},
		"fast ingest and few bytes":       {FastIngest: jetstream.FastIngestAlways, MaxPendingBytes: 2000},
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t, natstest.Run(t))
			f := open(t, nc, opts)
			batches := history(random(t, 1), 3000)
			store(t, f, batches)
			verify(t, nc, batches)
		})
	}
}

func TestResetOnlyWhereSomebodyHasRead(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	batches := []*listeners.Batch{reset(1), snapshot(1, 2), live(1), transaction(2, 1), reset(5), snapshot(5, 2), live(5)}
	store(t, open(t, nc, nil), batches)
	// A crash right behind the reset: the tail is the reset itself.
	f := open(t, nc, nil)
	more := []*listeners.Batch{reset(9), snapshot(9, 3), live(9)}
	store(t, f, more[:1])
	f.Close()
	store(t, open(t, nc, nil), append(batches, more...))
	verify(t, nc, append(batches, more...))
	for m, err := range jetstream.Read(t.Context(), nc, "CDC_SHOP", &jetstream.ReadOptions{FilterSubjects: []string{"cdc.shop._control.>"}}) {
		if err != nil || !m.Reset || m.Subject != "cdc.shop._control.reset.reset.all" || string(m.Body) != `{"op":"reset"}` {
			t.Errorf("Read of the resets = %+v, %v, want a reset", m, err)
		}
	}
}

func TestWhatAMessageLooksLike(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, &jetstream.Options{MsgID: true})
	store(t, f, []*listeners.Batch{transaction(42, 1)})
	js := natstest.JetStream(t, s)
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	const position = "0000000000000007-000000000000002a-00000000"
	want := nats.Header{
		"Nats-Expected-Stream": {"CDC_SHOP"}, "Nats-Expected-Last-Sequence": {"0"}, "Nats-Msg-Id": {"postgres/shop/" + position},
		"ce-specversion": {"1.0"}, "ce-id": {"postgres/shop/" + position}, "ce-source": {"postgres/shop"},
		"ce-type": {"rowcall.create.v1"}, "ce-subject": {"public.seats/42000"}, "ce-partitionkey": {"public.seats/42000"},
		"ce-time": {"2027-01-15T08:00:00.042000Z"}, "ce-sequence": {position}, "ce-txid": {"42"}, "ce-txend": {"true"},
		"ce-datacontenttype": {"application/json"},
	}
	for name := range m.Header { // the server's own, on a direct get
		if strings.HasPrefix(name, "Nats-") && want[name] == nil {
			m.Header.Del(name)
		}
	}
	if diff := cmp.Diff(want, m.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if got, want := string(m.Data), `{"op":"create","key":{"id":42000},"before":null,"after":{"id":42000,"seat":"60A"}}`; got != want {
		t.Errorf("body = %s, want %s", got, want)
	}
	if got, want := m.Subject, "cdc.shop.public.seats.create.010"; got != want {
		t.Errorf("subject = %s, want %s", got, want)
	}
}

// What a predecessor had sent arrives after its successor has read the tail.
func TestPredecessorsLastMessages(t *testing.T) { predecessorsLastMessages(t, nil) }

func predecessorsLastMessages(t *testing.T, opts *jetstream.Options) {
	t.Helper()
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needsFor(t, nc, opts)
	batches := history(random(t, 6), 2000)
	first := open(t, nc, opts)
	store(t, first, batches[:len(batches)/3])
	var patient jetstream.Options
	if opts != nil {
		patient = *opts
	}
	patient.AckTimeout = time.Minute // for which it takes another one for its predecessor
	second := open(t, nc, &patient)

	if err := feed(t.Context(), second, batches[:len(batches)/3]); err != nil {
		t.Fatal(err)
	}
	store(t, first, batches[len(batches)/3:len(batches)/2])
	store(t, second, batches[len(batches)/3:])
	verify(t, nc, batches)
}

func TestForeignMessageIsFenced(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, nil) // within its first seconds: they excuse a predecessor only
	store(t, f, []*listeners.Batch{transaction(1, 5)})
	js := natstest.JetStream(t, s)
	if _, err := js.Publish(t.Context(), "cdc.shop.hello", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	err := feed(t.Context(), f, []*listeners.Batch{transaction(2, 5)})
	if err == nil {
		err = f.Flush(t.Context())
	}
	var fenced *sinks.FencedError
	if !errors.As(err, &fenced) || !strings.Contains(err.Error(), `"cdc.shop.hello"`) {
		t.Fatalf("after a foreign message: %v, want a FencedError that names its subject", err)
	}
	var wrong *sinks.PlaceError
	if _, err := tryOpen(t, nc, nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), `"cdc.shop.hello"`) {
		t.Errorf("Open behind a foreign message: %v, want a PlaceError that names its subject", err)
	}
	// The remedy that the error names.
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(1, 5), transaction(2, 5)})
	verify(t, nc, []*listeners.Batch{transaction(1, 5), transaction(2, 5)})
}

// A stranger's message takes a place that was meant for an event in flight. The
// events behind it must not be stored then.
func TestForeignMessageMakesNoGap(t *testing.T) { foreignMessageMakesNoGap(t, nil) }

func foreignMessageMakesNoGap(t *testing.T, opts *jetstream.Options) {
	t.Helper()
	t.Parallel()
	for seed := range uint64(3) {
		s := natstest.Run(t)
		nc, foreign := connect(t, s), connect(t, s)
		needsFor(t, nc, opts)
		f := open(t, nc, opts)
		r := random(t, 70+seed)
		batches := history(r, 4000)
		moment := 100 + r.Uint64N(2000)
		var wg sync.WaitGroup
		wg.Go(func() {
			eventually(t, "the load has begun", func() bool { return f.Stored().Commit > moment/20 })
			if err := foreign.Publish("cdc.shop.hello", nil); err != nil {
				t.Error(err)
			}
			if err := foreign.Flush(); err != nil {
				t.Error(err)
			}
		})
		err := feed(t.Context(), f, batches)
		wg.Wait()
		if err == nil {
			err = feed(t.Context(), f, []*listeners.Batch{transaction(1<<40, 1)})
		}
		if err == nil {
			err = f.Flush(t.Context())
		}
		if _, ok := errors.AsType[*sinks.FencedError](err); !ok {
			t.Fatalf("with a stranger on the stream: %v, want a FencedError", err)
		}
		var got []string
		for m, err := range jetstream.Read(t.Context(), nc, "CDC_SHOP", nil) {
			if err == nil {
				got = append(got, line(&m))
			}
		}
		if diff := cmp.Diff(stored(batches)[:len(got)], got); diff != "" {
			t.Errorf("events around the stranger's message (-want +got):\n%.2000s", diff)
		}
	}
}

func TestTooLargeForTheStreamIsNamed(t *testing.T) { tooLargeForTheStreamIsNamed(t, nil) }

func tooLargeForTheStreamIsNamed(t *testing.T, opts *jetstream.Options) {
	t.Helper()
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	needsFor(t, nc, opts)
	f := open(t, nc, opts)
	js := natstest.JetStream(t, s)
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgSize = 4000
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	large := transaction(2, 3)
	large.Events[1].After = wide(4711, 5000)
	err = feed(t.Context(), f, []*listeners.Batch{transaction(1, 2), large})
	if err == nil {
		err = f.Flush(t.Context())
	}
	var tooLarge *sinks.TooLargeError
	if !errors.As(err, &tooLarge) || tooLarge.Key != "4711" || tooLarge.Limit != 4000 || tooLarge.Position != at(2, 1) {
		t.Fatalf("a row larger than max_msg_size: %v, want a TooLargeError for key 4711", err)
	}
}
