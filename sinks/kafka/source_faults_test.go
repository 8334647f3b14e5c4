package kafka_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// wholeTransactions checks that a listener was told what follows a first batch,
// each transaction whole, in order, and once. Live comes wherever the tip was.
func wholeTransactions(t testing.TB, what string, want []*listeners.Batch, got []listenertest.Batch) {
	t.Helper()
	wanted := slices.DeleteFunc(slices.Clone(want), func(b *listeners.Batch) bool { return b.Kind == listeners.Live })
	heard := slices.DeleteFunc(slices.Clone(got), func(b listenertest.Batch) bool { return b.Kind == listeners.Live })
	if diff := cmp.Diff(sinktest.Told(sinktest.Recorded(wanted...)), sinktest.Told(heard)); diff != "" {
		if len(diff) > 3000 {
			diff = diff[:3000] + "…"
		}
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Writers crash in the middle of transactions, leaders move, wires break, and
// brokers answer with errors. Each reader hears every transaction whole, in
// order and once; one of them with little memory, one that begins in the midst of
// it.
func TestSourceHearsEverythingOnceAmongFaults(t *testing.T) {
	t.Parallel()
	c := run(t)
	r := random(t, 30)
	batches := spread(r, 2500)
	want := sinktest.Whole(batches)
	wires := []*sinktest.Wire{{}, {}}
	var recorders []*listenertest.Recorder
	read := func(opts sinks.SourceOptions, client ...kgo.Opt) {
		rec := new(listenertest.Recorder)
		s := source(t, c, &opts, client...)
		sinktest.Subscribe(t, s, rec, nil)
		sinktest.Start(t, s)
		recorders = append(recorders, rec)
	}
	for i, w := range wires {
		read(sinks.SourceOptions{Start: sinks.Start{Oldest: true}, MaxBytes: int64(i) * 4000}, kgo.Dialer(w.DialContext))
	}
	faults := []kfake.Fault{
		{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: 3},
		{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.OffsetNotAvailable, Count: 3},
		{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: 4},
		{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition, Count: 4},
	}
	late := listeners.Position{}
	for from := 0; from < len(batches); {
		to := min(from+1+r.IntN(len(batches)/10), len(batches))
		for !batches[to-1].Last {
			to++
		}
		f := openAmongFaults(t, c, &kafka.Options{MaxPendingBytes: 1 + r.IntN(50_000)})
		sent := batches[:to]
		if next := to; next < len(batches) && len(batches[next].Events) > 1 && batches[next].Kind == listeners.Changes {
			cut := *batches[next] // the rest of it was never sent
			cut.Events = cut.Events[:1+r.IntN(len(cut.Events)-1)]
			cut.Last, cut.Position = false, cut.Events[len(cut.Events)-1].Position
			sent = append(slices.Clip(sent), &cut)
		}
		if err := sinktest.Feed(t.Context(), f, sent); err != nil {
			t.Fatal(err)
		}
		switch r.IntN(4) {
		case 0:
			f.Close()
		case 1:
			c.ShufflePartitionLeaders()
		case 2:
			c.Fault(faults[r.IntN(len(faults))])
		case 3:
			wires[r.IntN(len(wires))].Cut()
		}
		if late.IsZero() && to > len(batches)/2 {
			store(t, openAmongFaults(t, c, nil), batches[:to])
			late = lastOf(want, batches[to-1].Position)
			read(sinks.SourceOptions{Start: sinks.Start{After: late}})
		}
		from = to
	}
	store(t, openAmongFaults(t, c, nil), batches)
	end := want[len(want)-1].Position
	for i, rec := range recorders[:2] {
		wholeTransactions(t, "reader "+string(rune('0'+i)), want, waitFor(t, rec, end))
	}
	rest := slices.DeleteFunc(slices.Clone(want), func(b *listeners.Batch) bool { return b.Position.Compare(late) <= 0 })
	wholeTransactions(t, "the late reader", rest, waitFor(t, recorders[2], end))
}

// openAmongFaults tries again, since a fault that was meant for readers may hit a
// writer.
func openAmongFaults(t testing.TB, c *cluster, opts *kafka.Options) *sinks.Firehose {
	t.Helper()
	for tries := 1; ; tries++ {
		f, err := tryOpen(t, c, opts)
		if err == nil {
			return f
		}
		if tries == 20 {
			t.Fatalf("Open: %v", err)
		}
	}
}

// lastOf returns the position of the last of these batches that is not behind
// another one.
func lastOf(want []*listeners.Batch, at listeners.Position) listeners.Position {
	var last listeners.Position
	for _, b := range want {
		if b.Position.Compare(at) <= 0 && b.Kind != listeners.Live {
			last = b.Position
		}
	}
	return last
}

// What a source may hold is little, and all of it is needed by the order.
func TestSourceWithLittleMemory(t *testing.T) {
	t.Parallel()
	c := run(t)
	batches := spread(rand.New(rand.NewPCG(31, 0)), 5000)
	store(t, open(t, c, nil), batches)
	got, err := readAll(t, c, sinks.SourceOptions{Start: sinks.Start{Oldest: true}, MaxBytes: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wholeTransactions(t, "batches", sinktest.Whole(batches), got)
}

// An open transaction of a writer that is gone is waited for, and what follows
// its end is heard.
func TestSourceWaitsForATransaction(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, nil)
	store(t, f, []*listeners.Batch{sinktest.Transaction(1, 8)})
	halves := sinktest.Parts(sinktest.Transaction(2, 40), 20)
	heard := new(listenertest.Recorder)
	s := source(t, c, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	sinktest.Subscribe(t, s, heard, nil)
	sinktest.Start(t, s)
	waitFor(t, heard, sinktest.At(1, 7))
	if err := f.OnBatch(t.Context(), halves[0]); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(t.Context()); err != nil { // a part of it is committed
		t.Fatal(err)
	}
	next := open(t, c, nil) // the writer is gone
	eventually(t, "the part is read", func() bool {
		lag, err := s.Lag(t.Context())
		return err == nil && lag.Messages == 0
	})
	for _, b := range heard.Batches() {
		if b.Position.Commit == 2 && b.Kind == listeners.Changes {
			t.Errorf("half a transaction was told: %s", b.Position)
		}
	}
	store(t, next, append(slices.Clone(halves), sinktest.Transaction(3, 1)))
	got := waitFor(t, heard, sinktest.At(3, 0))
	wholeTransactions(t, "batches", []*listeners.Batch{sinktest.Transaction(1, 8), sinktest.Transaction(2, 40), sinktest.Transaction(3, 1)}, got)
}

// A topic that was deleted and made anew, with another history.
func TestSourceNoticesAnotherTopic(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, nil)
	store(t, f, []*listeners.Batch{sinktest.Transaction(1, 30)})
	heard := new(listenertest.Recorder)
	s := source(t, c, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	sinktest.Subscribe(t, s, heard, nil)
	sinktest.Start(t, s)
	waitFor(t, heard, sinktest.At(1, 29))
	f.Close()
	if _, err := admin(t, c).DeleteTopics(t.Context(), seatsTopic); err != nil {
		t.Fatal(err)
	}
	store(t, open(t, c, nil), []*listeners.Batch{sinktest.Transaction(3, 7), sinktest.Transaction(4, 2)})
	resets, rows := 0, 0
	eventually(t, "a reset and nine rows", func() bool {
		resets, rows = 0, 0
		for _, b := range heard.Batches() {
			if b.Kind == listeners.Reset {
				resets, rows = resets+1, 0
			}
			rows += len(b.Events)
		}
		return resets == 1 && rows >= 9
	})
	if rows != 9 {
		t.Errorf("after the topic was made anew there were %d rows, want 9: %v", rows, sinktest.Told(heard.Batches()))
	}
}

func TestSourceLag(t *testing.T) {
	t.Parallel()
	c := run(t)
	s := source(t, c, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, MaxBytes: 1})
	if lag, err := s.Lag(t.Context()); err != nil || lag != (sinks.SourceLag{}) {
		t.Errorf("Lag before Run = %+v, %v, want none", lag, err)
	}
	store(t, open(t, c, nil), []*listeners.Batch{sinktest.Transaction(1, 1), sinktest.Transaction(2, 1), sinktest.Transaction(3, 10)})
	sub := sinktest.Subscribe(t, s, new(listenertest.Recorder), nil)
	sub.Pause()
	sinktest.Start(t, s)
	eventually(t, "a lag of 11 messages and the marks of transactions", func() bool { // the feed takes one batch
		lag, err := s.Lag(t.Context())
		return err == nil && lag.Messages >= 11 && lag.Messages < 30 && lag.Age > 0
	})
	sub.Resume()
	eventually(t, "no lag", func() bool {
		lag, err := s.Lag(t.Context())
		return err == nil && lag == (sinks.SourceLag{})
	})
}

// Run ends soon after its context while the brokers are away.
func TestSourceEndsWithoutBrokers(t *testing.T) {
	t.Parallel()
	c := run(t)
	store(t, open(t, c, nil), []*listeners.Batch{sinktest.Transaction(1, 3)})
	s := source(t, c, nil)
	sub := sinktest.Subscribe(t, s, new(listenertest.Recorder), &listeners.SubscribeOptions{Current: true})
	stop := sinktest.Start(t, s)
	select {
	case <-sub.Live():
	case <-sub.Done():
		t.Fatalf("the subscription ended: %v", sub.Err())
	}
	c.Close()
	late := sinktest.Subscribe(t, s, new(listenertest.Recorder), &listeners.SubscribeOptions{Current: true})
	if err := stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	select {
	case <-late.Done():
	default:
		t.Error("a subscription goes on after Run has ended")
	}
	if _, err := s.Subscribe("late", new(listenertest.Recorder), nil); !errors.Is(err, listeners.ErrClosed) {
		t.Errorf("Subscribe after Run = %v, want ErrClosed", err)
	}
}
