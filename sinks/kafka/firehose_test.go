package kafka_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestOrderedAndComplete(t *testing.T) {
	t.Parallel()
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

func TestFaultsOfBrokersLoseNothingAndDoubleNothing(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// A reader that reads what is committed sees all of a transaction or nothing.
func TestATransactionInPartsIsVisibleAtItsEnd(t *testing.T) {
	t.Parallel()
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

// The brokers would abort it, and the firehose take that for a second writer.
func TestATransactionWhoseEndDoesNotComeIsCommittedInTime(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, &kafka.Options{TransactionTimeout: 40 * time.Second})
	parts := sinktest.Parts(sinktest.Transaction(21, 40), 25)
	if err := f.OnBatch(t.Context(), parts[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the part is visible", func() bool { return len(records(t, c, seatsTopic)) == 25 })
	store(t, f, parts[1:])
	verify(t, c, parts)
}

// OpenTimeout is not for what happens after Open.
func TestATopicThatTakesLongIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := openAmongFaults(t, c, &kafka.Options{OpenTimeout: 5 * time.Second}) // which a busy machine may need longer for
	busy := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.ThrottlingQuotaExceeded, Count: -1})
	ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
	defer stop()
	batches := []*listeners.Batch{sinktest.Transaction(20, 30)}
	if err := f.OnBatch(ctx, batches[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("OnBatch = %v, want the end of its context", err)
	}
	busy.Remove()
	if err := f.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	verify(t, c, batches)
}

// A body is parked although its topic cannot be made for the time being.
func TestParkingWaitsForItsTopic(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, &kafka.Options{MaxMessageBytes: 20_000, TooLarge: sinks.TooLargePark})
	store(t, f, []*listeners.Batch{sinktest.Transaction(20, 30)})
	busy := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.ThrottlingQuotaExceeded, Count: 3})
	defer busy.Remove()
	large := sinktest.Transaction(21, 1)
	large.Events[0].After = sinktest.Wide(1, 50_000)
	store(t, f, []*listeners.Batch{large})
	verify(t, c, []*listeners.Batch{sinktest.Transaction(20, 30), large})
}
