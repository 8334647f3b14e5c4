package kafka_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// openTransaction has a firehose send a part of a transaction of the source, and returns
// when the broker has it. What is sent after that is of the same Kafka transaction, if
// the broker has not ended it.
func openTransaction(t *testing.T, b *broker, f *sinks.Firehose, part *listeners.Batch) {
	t.Helper()
	if err := f.OnBatch(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker has the part", func() bool { return b.transaction(t).State == "Ongoing" })
}

func (b *broker) transaction(t *testing.T) kadm.DescribedTransaction {
	t.Helper()
	described, err := admin(t, b.cluster).DescribeTransactions(t.Context(), shopTransactions)
	if err != nil {
		t.Fatal(err)
	}
	return described[shopTransactions]
}

// A real broker says of what it has given up, and of a second writer, what the firehose
// relies on.
func TestRealBrokerGivesATransactionUp(t *testing.T) {
	b := runBroker(t)
	whole := sinktest.Transaction(20, 40)
	parts := sinktest.Parts(whole, 25)
	first, last := sinktest.Transaction(10, 5), sinktest.Transaction(30, 5)
	t.Run("and takes it again", func(t *testing.T) {
		b.deleteTopics(t)
		w := new(sinktest.Wire)
		f := open(t, b.cluster, &kafka.Options{TransactionTimeout: 4 * time.Second, Client: []kgo.Opt{kgo.Dialer(w.DialContext)}})
		store(t, f, []*listeners.Batch{first})
		openTransaction(t, b, f, parts[0])
		w.Freeze() // as if the process slept: it would commit in time
		eventually(t, "the broker gives it up", func() bool { return b.transaction(t).State == "CompleteAbort" })
		w.Thaw()
		store(t, f, []*listeners.Batch{parts[1], last})
		b.settle(t, seatsTopic)
		verify(t, b.cluster, []*listeners.Batch{first, whole, last})
	})
	t.Run("for another writer's", func(t *testing.T) {
		b.deleteTopics(t)
		f := open(t, b.cluster, nil)
		store(t, f, []*listeners.Batch{first})
		openTransaction(t, b, f, parts[0])
		next := open(t, b.cluster, nil)
		store(t, next, []*listeners.Batch{first, whole})
		err := f.OnBatch(t.Context(), parts[1])
		if err == nil {
			err = f.Flush(t.Context())
		}
		if _, fenced := errors.AsType[*sinks.FencedError](err); !fenced {
			t.Errorf("the first writer = %v, want a FencedError", err)
		}
		store(t, next, []*listeners.Batch{last})
		b.settle(t, seatsTopic)
		verify(t, b.cluster, []*listeners.Batch{first, whole, last})
	})
	t.Run("that was idle, for another writer's", func(t *testing.T) {
		b.deleteTopics(t)
		f := open(t, b.cluster, nil)
		store(t, f, []*listeners.Batch{first})
		next := open(t, b.cluster, nil)
		store(t, next, []*listeners.Batch{first, whole})
		err := f.OnBatch(t.Context(), whole)
		if err == nil {
			err = f.Flush(t.Context())
		}
		if _, fenced := errors.AsType[*sinks.FencedError](err); !fenced {
			t.Errorf("the first writer = %v, want a FencedError", err)
		}
		store(t, next, []*listeners.Batch{last})
		b.settle(t, seatsTopic)
		verify(t, b.cluster, []*listeners.Batch{first, whole, last})
	})
}
