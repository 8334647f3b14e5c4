package kafka_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestOrderedAndComplete(t *testing.T) {
	for name, opts := range map[string]*kafka.Options{
		"defaults":        nil,
		"no transactions": {NoTransactions: true},
		"little memory":   {MaxPendingBytes: 2000},
		"zstd":            {Compression: "zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			c := run(t)
			batches := sinktest.History(random(t, 1), 5000)
			store(t, open(t, c, opts), batches)
			verify(t, c, batches)
		})
	}
}

func TestRestartStoresNothingTwice(t *testing.T) {
	for name, opts := range map[string]*kafka.Options{"transactions": nil, "no transactions": {NoTransactions: true}} {
		t.Run(name, func(t *testing.T) {
			c := run(t)
			batches := sinktest.History(random(t, 2), 1000)
			for i := range 4 {
				f := open(t, c, opts)
				store(t, f, batches[:len(batches)*(i+1)/4])
				f.Close()
			}
			store(t, open(t, c, opts), batches)
			verify(t, c, batches)
		})
	}
}

// Each writer is abandoned at a random batch with others in flight, and its
// successor fences it and is fed everything from the beginning.
func TestCrashInMidTransaction(t *testing.T) {
	c := run(t)
	r := random(t, 3)
	batches := sinktest.History(r, 2000)
	for i := range 20 {
		f := open(t, c, &kafka.Options{MaxPendingBytes: 1 + r.IntN(100_000)})
		batches := batches[:len(batches)*(i+1)/20]
		if n := len(batches) - 1; n > 0 && len(batches[n].Events) > 1 && batches[n].Kind == listeners.Changes {
			cut := *batches[n] // the rest of it was never sent
			cut.Events = cut.Events[:1+r.IntN(len(cut.Events)-1)]
			cut.Last, cut.Position = false, cut.Events[len(cut.Events)-1].Position
			batches = append(batches[:n:n], &cut)
		}
		if err := sinktest.Feed(t.Context(), f, batches); err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			f.Close()
		}
	}
	store(t, open(t, c, nil), batches)
	verify(t, c, batches)
}

func TestFaultsOfBrokersLoseNothingAndDoubleNothing(t *testing.T) {
	for name, fault := range map[string]kfake.Fault{
		"lost acknowledgements":    {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 20},
		"too few replicas":         {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: 20},
		"not the leader":           {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 5},
		"disk full":                {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.KafkaStorageError, Count: 2},
		"coordinator is loading":   {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.CoordinatorLoadInProgress, Count: 2},
		"coordinator is elsewhere": {Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Err: kerr.NotCoordinator, Count: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			c := run(t)
			batches := sinktest.History(random(t, 4), 2000)
			f := open(t, c, nil)
			store(t, f, batches[:10])
			c.Fault(fault)
			for from := 10; from < len(batches); from += 20 {
				store(t, f, batches[from:min(from+20, len(batches))])
			}
			verify(t, c, batches)
		})
	}
}

func TestBrokersLeaveAndLeadersMove(t *testing.T) {
	c := run(t)
	batches := sinktest.History(random(t, 5), 3000)
	f := open(t, c, nil)
	for i, from := 0, 0; from < len(batches); i, from = i+1, from+20 {
		if i%3 == 0 {
			c.ShufflePartitionLeaders()
		}
		store(t, f, batches[from:min(from+20, len(batches))])
	}
	verify(t, c, batches)
}

// Nothing behind a record that can never be stored may take its place, or a
// restart would leave it out.
func TestNothingOvertakesARefusedRecord(t *testing.T) {
	for name, opts := range map[string]*kafka.Options{"transactions": nil, "no transactions": {NoTransactions: true}} {
		t.Run(name, func(t *testing.T) {
			c := run(t)
			batches := sinktest.History(random(t, 6), 1500)
			f := open(t, c, opts)
			store(t, f, batches[:5])
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.MessageTooLarge, Count: 1})
			err := sinktest.Feed(t.Context(), f, batches[5:])
			if err == nil {
				err = f.Flush(t.Context())
			}
			var refused *sinks.PlaceError
			if !errors.As(err, &refused) || refused.Place != "topic "+seatsTopic {
				t.Fatalf("error = %v, want a PlaceError for %s", err, seatsTopic)
			}
			select {
			case <-f.Stalled():
			default:
				t.Error("Stalled did not say so")
			}
			f.Close()
			store(t, open(t, c, opts), batches)
			verify(t, c, batches)
		})
	}
}

func TestTheOlderOfTwoWritersIsFenced(t *testing.T) {
	c := run(t)
	batches := sinktest.History(random(t, 7), 600)
	older := open(t, c, nil)
	store(t, older, batches[:len(batches)/2])
	younger := open(t, c, nil)
	err := sinktest.Feed(t.Context(), older, batches[len(batches)/2:])
	if err == nil {
		err = older.Flush(t.Context())
	}
	var fenced *sinks.FencedError
	if !errors.As(err, &fenced) {
		t.Errorf("the older one ends with %v, want a FencedError", err)
	}
	store(t, younger, batches)
	verify(t, c, batches)
}

func TestStoredNeverRunsAhead(t *testing.T) {
	c := run(t)
	f := open(t, c, &kafka.Options{MaxPendingBytes: 500})
	if got := f.Stored(); !got.IsZero() {
		t.Errorf("Stored at the start = %s, want zero", got)
	}
	batches := sinktest.History(random(t, 8), 800)
	for from := 0; from < len(batches); from += len(batches) / 4 {
		if err := sinktest.Feed(t.Context(), f, batches[from:min(from+len(batches)/4, len(batches))]); err != nil {
			t.Fatal(err)
		}
		stored := f.Stored()
		got := contents(t, c)
		var have, need int
		for p := range got {
			have += len(got[p])
		}
		var upTo []*listeners.Batch
		for _, b := range batches {
			if b.Position.Compare(stored) <= 0 {
				upTo = append(upTo, b)
			}
		}
		for _, lines := range sinktest.Frames(upTo, partitions) {
			need += len(lines)
		}
		if have < need {
			t.Fatalf("Stored = %s, which is %d records, but %d are there", stored, need, have)
		}
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	verify(t, c, batches)
}

// A reader that reads what is committed sees all of a transaction or nothing.
func TestATransactionInPartsIsVisibleAtItsEnd(t *testing.T) {
	c := run(t)
	f := open(t, c, nil)
	first := sinktest.Transaction(20, 30)
	store(t, f, []*listeners.Batch{first})
	parts := sinktest.Parts(sinktest.Transaction(21, 40), 25)
	if err := f.OnBatch(t.Context(), parts[0]); err != nil {
		t.Fatal(err)
	}
	if n := len(records(t, c, seatsTopic)); n != 30 {
		t.Errorf("%d records are visible before the end of the transaction, want 30", n)
	}
	if got := f.Stored(); got != first.Position {
		t.Errorf("Stored in the middle of a transaction = %s, want %s", got, first.Position)
	}
	store(t, f, parts[1:])
	verify(t, c, append([]*listeners.Batch{first}, parts...))
}
