package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// source returns a source that is not running.
func source(t testing.TB, nc *nats.Conn, opts *sinks.SourceOptions) *sinks.Source {
	t.Helper()
	s, err := jetstream.NewSource(nc, "CDC_SHOP", opts)
	if err != nil {
		t.Fatalf("NewSource: %v", err)
	}
	return s
}

// A listener of the stream hears the batches that one of the database hears.
func TestSourceTellsTheBatchesOfTheDatabase(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	batches := history(random(t, 50), 3000)
	store(t, f, batches)

	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
	sinktest.Subscribe(t, s, r, nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if diff := cmp.Diff(sinktest.Told(sinktest.Recorded(sinktest.Whole(batches)...)), sinktest.Told(r.Batches())); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

// A firehose that is fed by another one, and begins anew behind the first
// snapshot's reset, stores the snapshot whole.
func TestFirehoseOfAFirehose(t *testing.T) {
	t.Parallel()
	nc, second := connect(t, natstest.Run(t)), connect(t, natstest.Run(t))
	store(t, open(t, nc, nil), history(random(t, 51), 300))
	f := open(t, second, nil)
	store(t, f, []*listeners.Batch{transaction(1, 2)})
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
	sinktest.Subscribe(t, s, listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
		err := f.OnBatch(ctx, b)
		if err == nil {
			err = f.Flush(ctx)
		}
		if b.Kind == listeners.Reset {
			f.Close()
			f = open(t, second, nil)
		}
		return err
	}), nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	got, want := contents(t, second), contents(t, nc)
	if diff := cmp.Diff(want, got[min(3, len(got)):]); diff != "" { // two changes and the reset
		t.Errorf("the second stream behind the first snapshot's reset (-first +second):\n%s", diff)
	}
}

func TestSourceStarts(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	batches := []*listeners.Batch{transaction(1, 3), transaction(2, 3)}
	store(t, f, batches)
	later := time.Now()
	batches = append(batches, transaction(5, 2), transaction(6, 4))
	store(t, f, batches[2:])
	all := sinktest.Events(sinktest.Recorded(batches...))

	for name, tc := range map[string]struct {
		start sinks.Start
		want  []string
		part  bool // the first batch is no First
	}{
		"oldest":                 {sinks.Start{Oldest: true}, all, false},
		"now":                    {sinks.Start{}, nil, false},
		"sequence":               {sinks.Start{Sequence: 4}, all[3:], false},
		"within a transaction":   {sinks.Start{Sequence: 5}, all[4:], true},
		"sequence to come":       {sinks.Start{Sequence: 100}, nil, false},
		"time":                   {sinks.Start{Time: later}, all[6:], false},
		"time to come":           {sinks.Start{Time: later.Add(time.Hour)}, nil, false},
		"after a position":       {sinks.Start{After: at(2, 2)}, all[6:], false},
		"after one within":       {sinks.Start{After: at(2, 0)}, all[4:], true},
		"after one in between":   {sinks.Start{After: at(3, 7)}, all[6:], false},
		"after the last":         {sinks.Start{After: at(6, 3)}, nil, false},
		"position before time":   {sinks.Start{After: at(2, 2), Oldest: true}, all[6:], false},
		"sequence before oldest": {sinks.Start{Sequence: 4, Oldest: true}, all[3:], false},
	} {
		t.Run(name, func(t *testing.T) {
			r := new(listenertest.Recorder)
			s := source(t, nc, &sinks.SourceOptions{Start: tc.start, UntilTip: true})
			sinktest.Subscribe(t, s, r, nil)
			if err := s.Run(t.Context()); err != nil {
				t.Fatalf("Run: %v", err)
			}
			got := r.Batches()
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
			if want := 1; tc.start == (sinks.Start{}) && lives != 0 || tc.start != (sinks.Start{}) && lives != want {
				t.Errorf("Live came %d times from %+v", lives, tc.start)
			}
		})
	}
}

// Its end is waited for, however long that takes.
func TestSourceWaitsForTheEndOfATransaction(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	halves := parts(transaction(1, 6), 4)
	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	store(t, f, halves[:1])
	sinktest.Subscribe(t, s, r, nil)
	sinktest.Start(t, s)
	eventually(t, "the half is read", func() bool {
		lag, err := s.Lag(t.Context())
		return err == nil && lag.Messages == 0
	})
	if got := r.Batches(); len(got) != 0 {
		t.Errorf("half a transaction arrived: %+v", got)
	}
	store(t, f, halves[1:])
	if _, err := r.Wait(t.Context(), func(b []listenertest.Batch) bool { return len(b) == 2 }); err != nil {
		t.Fatal(err)
	}
	got := r.Batches()
	if got[0].Kind != listeners.Changes || len(got[0].Events) != 6 || !got[0].First || !got[0].Last || got[1].Kind != listeners.Live {
		t.Errorf("batches = %+v, want the whole transaction and Live", got)
	}
}

func TestSourceCutsALargeTransaction(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	b := transaction(1, 1000)
	store(t, f, []*listeners.Batch{b, transaction(2, 1)})
	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true, MaxTxBytes: 50_000})
	sinktest.Subscribe(t, s, r, nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	got := r.Batches()
	if diff := cmp.Diff(sinktest.Events(sinktest.Recorded(b, transaction(2, 1))), sinktest.Events(got)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	n := len(got) - 2 // the other transaction, and Live
	if n < 5 {
		t.Fatalf("the transaction came in %d parts, want more", n)
	}
	for i, b := range got[:n] {
		if b.First != (i == 0) || b.Last != (i == n-1) {
			t.Errorf("part %d of %d: First = %t, Last = %t", i, n, b.First, b.Last)
		}
	}
}

func TestSourceLimitsCollections(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(1, 2)})
	for _, collection := range []string{"public.seats", "public.trains"} {
		r := new(listenertest.Recorder)
		s := source(t, nc, &sinks.SourceOptions{
			Start: sinks.Start{Oldest: true}, UntilTip: true, Collections: []string{collection},
		})
		sinktest.Subscribe(t, s, r, nil)
		if err := s.Run(t.Context()); err != nil {
			t.Fatalf("Run: %v", err)
		}
		if got, want := len(sinktest.Events(r.Batches())), map[string]int{"public.seats": 2}[collection]; got != want {
			t.Errorf("%s: %d events, want %d", collection, got, want)
		}
	}
}

// What is no event is left out; what is one and cannot be read is never dropped.
func TestSourceAndMessagesThatItCannotRead(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 1)})
	js := natstest.JetStream(t, server)
	if _, err := js.Publish(t.Context(), "cdc.shop.hello", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	run := func() ([]listenertest.Batch, error) {
		r := new(listenertest.Recorder)
		s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
		sinktest.Subscribe(t, s, r, nil)
		err := s.Run(t.Context())
		return r.Batches(), err
	}
	if got, err := run(); err != nil || len(sinktest.Events(got)) != 1 {
		t.Errorf("Run with a foreign message = %v, %d events, want nil and 1", err, len(sinktest.Events(got)))
	}
	bad := nats.NewMsg("cdc.shop.public.seats.create.001")
	bad.Header.Set("ce-sequence", at(2, 0).String())
	bad.Header.Set("ce-source", "postgres/shop")
	bad.Data = []byte(`{"op":"create","after":{"id":1`)
	if _, err := js.PublishMsg(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	if _, err := run(); err == nil || !strings.Contains(err.Error(), "sequence 3") {
		t.Errorf("Run with a broken event = %v, want an error that names sequence 3", err)
	}
}

// A subscription that asks for the present state gets it, and every later
// change once, whenever it comes.
func TestSourceTellsThePresentState(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	batches := history(random(t, 51), 4000)
	half := len(batches) / 2
	store(t, f, batches[:half])
	s := source(t, nc, nil)
	early := new(listenertest.Recorder)
	sinktest.Subscribe(t, s, early, &listeners.SubscribeOptions{Current: true})
	sinktest.Start(t, s)
	var late []*listenertest.Recorder
	for i, b := range batches[half:] {
		store(t, f, []*listeners.Batch{b})
		if i%20 == 0 && len(late) < 8 {
			r := new(listenertest.Recorder)
			sinktest.Subscribe(t, s, r, &listeners.SubscribeOptions{Current: true})
			late = append(late, r)
		}
	}
	want := make(map[string]string)
	for _, b := range sinktest.Recorded(batches...) {
		if b.Kind == listeners.Reset {
			clear(want)
		}
		for _, e := range b.Events {
			want[e.Key] = e.After
		}
	}
	last := f.Stored()
	for i, r := range append(late, early) {
		var end listeners.Position
		for _, b := range batches {
			if len(b.Events) > 0 {
				end = b.Position
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := r.Wait(ctx, func(b []listenertest.Batch) bool {
			return len(b) > 0 && b[len(b)-1].Position.Compare(end) >= 0 && b[len(b)-1].Kind != listeners.Reset && b[len(b)-1].Kind != listeners.Snapshot
		})
		cancel()
		if err != nil {
			t.Fatalf("subscription %d has not heard %s: %v", i, last, err)
		}
		state, seen := make(map[string]string), make(map[listeners.Position]bool)
		for _, b := range got {
			if b.Kind == listeners.Reset {
				clear(state)
			}
			for _, e := range b.Events {
				state[e.Key] = e.After
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

// The limits take messages that a reader has not read. What is left begins with
// a reset, so that all subscriptions are told the state anew.
func TestSourceResetsWhenHistoryIsGone(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 3), reset(4), snapshot(4, 5), transaction(5, 2)})
	stream, err := natstest.JetStream(t, server).Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), natsjs.WithPurgeSequence(4)); err != nil { // up to the reset
		t.Fatal(err)
	}
	for name, begin := range map[string]sinks.Start{
		"sequence": {Sequence: 2},
		"position": {After: at(1, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			r := new(listenertest.Recorder)
			s := source(t, nc, &sinks.SourceOptions{Start: begin, UntilTip: true})
			sinktest.Subscribe(t, s, r, nil)
			if err := s.Run(t.Context()); err != nil {
				t.Fatalf("Run: %v", err)
			}
			got := r.Batches()
			if len(got) != 3 || got[0].Kind != listeners.Reset || got[1].Kind != listeners.Snapshot || len(got[1].Events) != 7 || got[2].Kind != listeners.Live {
				t.Errorf("batches = %+v, want a reset, 7 rows, and Live", got)
			}
		})
	}
}

// A stream that was deleted and made anew, with another history.
func TestSourceNoticesAnotherStream(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 5)})
	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	sinktest.Subscribe(t, s, r, nil)
	sinktest.Start(t, s)
	if _, err := r.Wait(t.Context(), func(b []listenertest.Batch) bool { return len(b) == 2 }); err != nil {
		t.Fatal(err)
	}
	f.Close()
	js := natstest.JetStream(t, server)
	if err := js.DeleteStream(t.Context(), "CDC_SHOP"); err != nil {
		t.Fatal(err)
	}
	store(t, openAnew(t, nc, nil), []*listeners.Batch{transaction(3, 7), transaction(4, 2)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rows := func(batches []listenertest.Batch) (n int) {
		for _, b := range batches {
			n += len(b.Events)
		}
		return n
	}
	// The source may come when the new stream has only a part of it.
	got, err := r.Wait(ctx, func(b []listenertest.Batch) bool { return len(b) > 2 && rows(b[2:]) >= 9 })
	if err != nil {
		t.Fatalf("%v; batches: %v", err, sinktest.Told(got))
	}
	if got[2].Kind != listeners.Reset || rows(got[2:]) != 9 {
		t.Errorf("batches after the stream was made anew = %v, want a reset and 9 rows", sinktest.Told(got[2:]))
	}
}

// What a replica without a leader says of the stream may be old: it is no sign of
// another stream.
func TestSourceAsksALeader(t *testing.T) {
	t.Parallel()
	nc, err := nats.Connect(bareServer(t, &server.Options{}).ClientURL()) // the test answers for JetStream
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	asked := 0
	answer := func(subject string, with func() string) {
		sub, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(with())) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sub.Unsubscribe() })
	}
	const info = `{"config":{"name":"CDC_SHOP","num_replicas":3},"created":"2026-01-0%dT00:00:00Z","state":{"first_seq":1,"last_seq":%d},"cluster":{"name":"c","leader":%q}}`
	answer("$JS.API.STREAM.INFO.CDC_SHOP", func() string {
		if asked++; asked%2 == 1 {
			return fmt.Sprintf(info, 1, 7, "")
		}
		return fmt.Sprintf(info, 2, 0, "n1")
	})
	answer("$JS.API.CONSUMER.CREATE.CDC_SHOP.>", func() string { return `{"stream_name":"CDC_SHOP","name":"c","config":{"ack_policy":"none"}}` })
	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
	sinktest.Subscribe(t, s, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if got := r.Batches(); len(got) != 1 || got[0].Kind != listeners.Live {
		t.Errorf("batches = %v, want Live alone", sinktest.Told(got))
	}
}

// A consumer may be on a replica that has applied more than the leader: what was read
// and is not there yet is no sign of another stream.
func TestSourceWaitsForALeaderThatIsBehind(t *testing.T) {
	t.Parallel()
	nc, err := nats.Connect(bareServer(t, &server.Options{}).ClientURL()) // the test answers for JetStream
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	const info = `{"config":{"name":"CDC_SHOP","num_replicas":3},"created":"2026-01-01T00:00:00Z","state":{"messages":%d,"first_seq":1,"last_seq":%d},"cluster":{"name":"c","leader":"n1"}}`
	var mu sync.Mutex
	asked, began := 0, ""
	for subject, answer := range map[string]func([]byte) string{
		"$JS.API.STREAM.INFO.CDC_SHOP": func([]byte) string {
			if asked++; asked == 3 { // 1 and 2 find the place
				return fmt.Sprintf(info, 5, 5)
			}
			return fmt.Sprintf(info, 7, 7)
		},
		"$JS.API.STREAM.MSG.GET.CDC_SHOP": func([]byte) string {
			return `{"error":{"code":404,"err_code":10037,"description":"no message found"}}`
		},
		"$JS.API.CONSUMER.CREATE.CDC_SHOP.>": func(question []byte) string {
			began += string(question)
			return `{"stream_name":"CDC_SHOP","name":"c","config":{"ack_policy":"none"}}`
		},
	} {
		sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
			mu.Lock()
			defer mu.Unlock()
			_ = m.Respond([]byte(answer(m.Data)))
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sub.Unsubscribe() })
	}
	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{UntilTip: true})
	sinktest.Subscribe(t, s, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatalf("Run: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked < 4 || strings.Count(began, "opt_start_seq") != 1 || !strings.Contains(began, `"opt_start_seq":8,`) {
		t.Errorf("after %d questions consumers began with %s, want one, at 8", asked, began)
	}
}
