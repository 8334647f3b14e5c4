package kafka_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// Brokers that were away for longer than a transaction may take need not mean that
// there is a second writer.
func TestATransactionThatWasGivenUpIsNamed(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := openAmongFaults(t, c, &kafka.Options{TransactionTimeout: time.Second})
	away := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	batches := []*listeners.Batch{sinktest.Transaction(20, 30)}
	if err := f.OnBatch(t.Context(), batches[0]); err != nil {
		t.Fatal(err)
	}
	epoch := func() (n int) {
		described, err := admin(t, c).DescribeTransactions(t.Context(), "rowcall-shop")
		if err != nil {
			return -1
		}
		return int(described["rowcall-shop"].ProducerEpoch)
	}
	first := -1
	eventually(t, "the transaction is known", func() bool { first = epoch(); return first >= 0 })
	eventually(t, "the brokers give the transaction up", func() bool { return epoch() > first })
	away.Remove()
	err := f.Flush(t.Context())
	if err == nil || !strings.Contains(err.Error(), "longer than TransactionTimeout, 1s") || !strings.Contains(err.Error(), "rowcall-shop") {
		t.Errorf("Flush = %v, want an error that names the timeout and the transactional id", err)
	}
	f.Close()
	store(t, openAmongFaults(t, c, nil), batches)
	verify(t, c, batches)
}
