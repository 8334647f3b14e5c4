package jetstream_test

import (
	"context"
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

var _ listeners.Durable = (*sinks.Firehose)(nil)

func random(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestOrderedAndComplete(t *testing.T) {
	for name, opts := range map[string]*jetstream.Options{
		"defaults":      nil,
		"narrow window": {MaxPending: 3},
		"few bytes":     {MaxPendingBytes: 2000},
		"message ids":   {MsgID: true},
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t, natstest.Run(t))
			f := open(t, nc, opts)
			batches := history(random(t, 1), 10_000)
			store(t, f, batches)
			verify(t, nc, batches)
		})
	}
}

func TestRestartStoresNothingTwice(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	batches := history(random(t, 2), 1000)
	for range 3 {
		f := open(t, nc, nil)
		store(t, f, batches)
		f.Close()
	}
	verify(t, nc, batches)
}

// Each process stores a part, is abandoned at a random message with others in
// flight, and the next one is fed everything from the beginning.
func TestCrashInMidTransaction(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	r := random(t, 3)
	batches := history(r, 3000)
	for i := range 20 {
		f := open(t, nc, nil)
		batches := batches[:len(batches)*(i+1)/20]
		cut := *batches[len(batches)-1]
		if n := len(cut.Events); n > 1 { // the rest was never sent
			cut.Events = cut.Events[:1+r.IntN(n-1)]
			cut.Last = false
			cut.Position = cut.Events[len(cut.Events)-1].Position
		}
		if err := feed(t.Context(), f, append(batches[:len(batches)-1:len(batches)-1], &cut)); err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			f.Close()
		}
	}
	f := open(t, nc, nil)
	store(t, f, batches)
	verify(t, nc, batches)
}

func TestStoredNeverRunsAhead(t *testing.T) {
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, &jetstream.Options{MaxPending: 64})
	if got := f.Stored(); !got.IsZero() {
		t.Errorf("Stored on an empty stream = %s, want zero", got)
	}
	batches := history(random(t, 4), 5000)
	done := make(chan error, 1)
	go func() { done <- feed(t.Context(), f, batches) }()
	js := natstest.JetStream(t, s)
	last := listeners.Position{}
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		said := f.Stored()
		if said.Compare(last) < 0 {
			t.Fatalf("Stored went back from %s to %s", last, said)
		}
		last = said
		if said.IsZero() {
			continue
		}
		stream, err := js.Stream(t.Context(), f.Name())
		if err != nil {
			t.Fatal(err)
		}
		have := listeners.Position{}
		if last := stream.CachedInfo().State.LastSeq; last > 0 {
			m, err := stream.GetMsg(t.Context(), last)
			if err != nil {
				t.Fatal(err)
			}
			if have, err = listeners.ParsePosition(m.Header.Get("ce-sequence")); err != nil {
				t.Fatal(err)
			}
		}
		// A batch without messages counts as stored once what is before it is.
		if have.Compare(said) < 0 && !holdsNothingBetween(batches, have, said) {
			t.Fatalf("Stored = %s, but the stream ends at %s", said, have)
		}
	}
	flush(t, f)
	verify(t, nc, batches)
}

func holdsNothingBetween(batches []*listeners.Batch, after, upTo listeners.Position) bool {
	for _, b := range batches {
		for i := range b.Events {
			if p := b.Events[i].Position; p.Compare(after) > 0 && p.Compare(upTo) <= 0 {
				return false
			}
		}
	}
	return true
}

func TestEmptyBatchesAdvanceStored(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{live(5)})
	store(t, f, []*listeners.Batch{transaction(10, 3), transaction(11, 0), live(12), live(13)})
	store(t, f, []*listeners.Batch{live(14)})
	if got, want := len(contents(t, nc)), 3; got != want {
		t.Errorf("the stream holds %d messages, want %d", got, want)
	}
}

func TestResetOnlyWhereSomebodyHasRead(t *testing.T) {
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

// Two firehoses on one stream: the one that was there first stops.
func TestStaleWriterIsFenced(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	opts := &jetstream.Options{AckTimeout: 300 * time.Millisecond}
	stale := open(t, nc, opts)
	batches := []*listeners.Batch{transaction(1, 5), transaction(2, 5), transaction(3, 5), transaction(4, 5)}
	store(t, stale, batches[:1])
	grace := time.NewTimer(opts.AckTimeout)
	<-grace.C
	fresh := open(t, nc, opts)
	store(t, fresh, batches[:2])

	err := feed(t.Context(), stale, batches[1:2]) // the very events that the other one stored
	if err == nil {
		err = stale.Flush(t.Context())
	}
	var fenced *sinks.FencedError
	if !errors.As(err, &fenced) || !strings.Contains(err.Error(), "is 10 (") || !strings.Contains(err.Error(), "not 5;") || fenced.Position != at(2, 4) {
		t.Fatalf("stale writer: %v, want a FencedError for sequence 10 at %s", err, at(2, 4))
	}
	if !strings.Contains(err.Error(), "another writer is on stream CDC_SHOP") {
		t.Errorf("stale writer: %v, want words about another writer", err)
	}
	if got := stale.Stored(); got != at(1, 4) {
		t.Errorf("Stored of the stale writer = %s, want %s", got, at(1, 4))
	}
	if again := stale.OnBatch(t.Context(), batches[2]); !errors.As(again, &fenced) {
		t.Errorf("OnBatch after the fence = %v, want the same error", again)
	}
	store(t, fresh, batches[2:])
	verify(t, nc, batches)
}

// What a predecessor had sent arrives after its successor has read the tail.
func TestPredecessorsLastMessages(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	batches := history(random(t, 6), 2000)
	first := open(t, nc, nil)
	store(t, first, batches[:len(batches)/3])
	second := open(t, nc, nil)

	if err := feed(t.Context(), second, batches[:len(batches)/3]); err != nil {
		t.Fatal(err)
	}
	store(t, first, batches[len(batches)/3:len(batches)/2])
	store(t, second, batches[len(batches)/3:])
	verify(t, nc, batches)
}

func TestForeignMessageIsFenced(t *testing.T) {
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
func TestForeignMessageMakesNoGap(t *testing.T) {
	for seed := range uint64(3) {
		s := natstest.Run(t)
		nc, foreign := connect(t, s), connect(t, s)
		f := open(t, nc, nil)
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

func TestOlderEpochIsRefused(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(9, 1)})
	old := transaction(10, 1)
	old.Position.Epoch, old.Events[0].Position.Epoch = epoch-1, epoch-1
	var older *sinks.EpochError
	if err := open(t, nc, nil).OnBatch(t.Context(), old); !errors.As(err, &older) {
		t.Errorf("OnBatch of an older epoch = %v, want an EpochError", err)
	}
	next := transaction(1, 1)
	next.Position.Epoch, next.Events[0].Position.Epoch = epoch+1, epoch+1
	store(t, open(t, nc, nil), []*listeners.Batch{next})
	verify(t, nc, []*listeners.Batch{transaction(9, 1), next})
}

func TestTooLargeIsNamed(t *testing.T) {
	s := natstest.Run(t)
	nc := connect(t, s)
	limit := nc.MaxPayload()
	f := open(t, nc, nil)
	large := transaction(2, 3)
	large.Events[1].After = wide(4711, int(limit))
	if err := feed(t.Context(), f, []*listeners.Batch{transaction(1, 2)}); err != nil {
		t.Fatal(err)
	}
	err := f.OnBatch(t.Context(), large)
	var tooLarge *sinks.TooLargeError
	if !errors.As(err, &tooLarge) {
		t.Fatalf("OnBatch of a large row = %v, want a TooLargeError", err)
	}
	if tooLarge.Collection != "public.seats" || tooLarge.Key != "4711" || tooLarge.Limit != limit || tooLarge.Size <= limit || tooLarge.Position != at(2, 1) {
		t.Errorf("TooLargeError = %+v, want public.seats 4711 at %s with more than %d bytes", tooLarge, at(2, 1), limit)
	}
	eventually(t, "what comes before it is stored", func() bool { return f.Stored() == at(1, 1) && len(contents(t, nc)) == 3 })
}

func TestTooLargeForTheStreamIsNamed(t *testing.T) {
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, nil)
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

func TestForeignSourceIsRefused(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	other := listeners.NewSchema("store", "public", "seats", seats.Columns)
	region := listeners.NewSchema("shop", "", "seats", seats.Columns)
	for name, s := range map[string]*listeners.Schema{"database": other, "region": region} {
		b := transaction(1, 1)
		b.Events[0].Schema = s
		if err := open(t, nc, nil).OnBatch(t.Context(), b); err == nil || !strings.Contains(err.Error(), "does not belong") {
			t.Errorf("OnBatch of another %s = %v, want an error", name, err)
		}
	}
	b := reset(5)
	b.Source = "store"
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 1)})
	if err := f.OnBatch(t.Context(), b); err == nil {
		t.Error("OnBatch of another database's reset = nil, want an error")
	}
}

func TestContextEndsTheWait(t *testing.T) {
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, &jetstream.Options{MaxPending: 8})
	store(t, f, []*listeners.Batch{transaction(1, 1)})
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := feed(ctx, f, []*listeners.Batch{transaction(2, 20)})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("OnBatch without a server = %v, want the context's error", err)
	}
	if got := f.Stored(); got != at(1, 0) {
		t.Errorf("Stored = %s, want %s", got, at(1, 0))
	}
}

func TestLifecycle(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	f, err := jetstream.New(nc, "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.OnBatch(t.Context(), transaction(1, 1)); err == nil {
		t.Error("OnBatch before Open = nil, want an error")
	}
	f.Close() // does nothing
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); err == nil {
		t.Error("second Open = nil, want an error")
	}
	f.Close()
	f.Close()
	if err := f.OnBatch(t.Context(), transaction(1, 1)); !errors.Is(err, listeners.ErrClosed) {
		t.Errorf("OnBatch after Close = %v, want ErrClosed", err)
	}
	if nc.IsClosed() {
		t.Error("Close closed the caller's connection")
	}
}

// A whole subscription, as a source runs it.
func TestSubscription(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	source := listeners.NewFeed(nil)
	sub, err := source.Subscribe("firehose", f, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	batches := history(random(t, 5), 2000)
	for _, b := range batches {
		if err := source.Reserve(t.Context()); err != nil {
			t.Fatal(err)
		}
		source.Append(b)
	}
	last := batches[len(batches)-1].Position
	eventually(t, "everything is stored", func() bool { return sub.Stored().Compare(last) >= 0 })
	source.Close()
	<-sub.Done()
	if err := sub.Err(); err != nil {
		t.Errorf("subscription: %v", err)
	}
	verify(t, nc, batches)
}
