package kafka_test

import (
	"slices"
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A real broker is killed and started again while writers come and go and a
// source follows them. It hears everything once, and so do one that begins in
// the midst of it and one that reads it all at the end.
func TestRealBrokerIsKilledAndASourceHearsEverythingOnce(t *testing.T) {
	b := runBroker(t)
	r := random(t, 32)
	const parts, kills = 12, 2
	batches := spread(r, 3000)
	killed := r.Perm(parts)[:kills]
	want := sinktest.Whole(batches)
	heard, lateHeard := new(listenertest.Recorder), new(listenertest.Recorder)
	s := source(t, b.cluster, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	sinktest.Subscribe(t, s, heard, nil)
	f := open(t, b.cluster, patient(kafka.Options{}))
	sinktest.Start(t, s)
	var late listeners.Position
	for i, from := 0, 0; from < len(batches); i++ {
		to := max(from+1, len(batches)*min(i+1, parts)/parts)
		for !batches[to-1].Last {
			to++
		}
		fed := make(chan error, 1)
		go func() { fed <- sinktest.Feed(t.Context(), f, batches[from:to]) }()
		if slices.Contains(killed, i) {
			b.kill()
			b.start(t)
		}
		if err := <-fed; err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			f = open(t, b.cluster, patient(kafka.Options{}))
			store(t, f, batches[:to]) // everything again
			if late.IsZero() && to > len(batches)/3 {
				late = lastOf(want, batches[to-1].Position)
				next := source(t, b.cluster, &sinks.SourceOptions{Start: sinks.Start{After: late}})
				sinktest.Subscribe(t, next, lateHeard, nil)
				sinktest.Start(t, next)
			}
		}
		from = to
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	end := want[len(want)-1].Position
	wholeTransactions(t, "the source", want, waitFor(t, heard, end))
	if !late.IsZero() {
		rest := slices.DeleteFunc(slices.Clone(want), func(b *listeners.Batch) bool { return b.Position.Compare(late) <= 0 })
		wholeTransactions(t, "the late source", rest, waitFor(t, lateHeard, end))
	}
	got, err := readAll(t, b.cluster, sinks.SourceOptions{Start: sinks.Start{Oldest: true}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantTold(t, "all, at the end", want, got)
}
