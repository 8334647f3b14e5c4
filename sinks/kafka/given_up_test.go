package kafka_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

const shopTransactions = "rowcall-shop"

// giveUp feeds a batch while transactions cannot end, until the brokers have given up
// the one that it is in. They are there again once they say of it what adapt makes of
// a transaction that ended for its time.
func giveUp(t *testing.T, c *cluster, f *sinks.Firehose, b *listeners.Batch, adapt func(*kadm.DescribedTransaction)) {
	t.Helper()
	fed := make(chan error, 1)
	giveUpDuring(t, c, func() { fed <- f.OnBatch(t.Context(), b) }, adapt)
	if err := <-fed; err != nil {
		t.Fatal(err)
	}
}

// giveUpDuring is giveUp for what feed does meanwhile.
func giveUpDuring(t *testing.T, c *cluster, feed func(), adapt func(*kadm.DescribedTransaction)) {
	t.Helper()
	away := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	defer away.Remove()
	a := admin(t, c)
	describe := func() kadm.DescribedTransaction {
		described, err := a.DescribeTransactions(t.Context(), shopTransactions)
		if err != nil {
			return kadm.DescribedTransaction{}
		}
		return described[shopTransactions]
	}
	go feed()
	var first, now kadm.DescribedTransaction
	eventually(t, "the transaction is open", func() bool { first = describe(); return first.State == "Ongoing" })
	eventually(t, "the brokers give the transaction up", func() bool { now = describe(); return now.ProducerEpoch > first.ProducerEpoch })
	now.State = "CompleteAbort"
	adapt(&now)
	describes(c, now)
}

// describes has the cluster answer what a transactional id is like: the fake one calls
// a transaction that it gave up Empty.
func describes(c *cluster, d kadm.DescribedTransaction) {
	c.ControlKey(int16(kmsg.DescribeTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		answer := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		is := kmsg.NewDescribeTransactionsResponseTransactionState()
		is.TransactionalID, is.State, is.ProducerID, is.ProducerEpoch = shopTransactions, d.State, d.ProducerID, d.ProducerEpoch
		if refused, ok := errors.AsType[*kerr.Error](d.Err); ok {
			is.ErrorCode = refused.Code
		}
		answer.TransactionStates = append(answer.TransactionStates, is)
		return answer, nil, true
	})
}

// Brokers that were away for longer than a transaction may take have given it up. The
// firehose sends it again, once.
func TestATransactionThatWasGivenUpIsSentAgain(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := openAmongFaults(t, c, &kafka.Options{TransactionTimeout: time.Second})
	batches := []*listeners.Batch{sinktest.Transaction(10, 5), sinktest.Transaction(20, 30), sinktest.Transaction(30, 5)}
	store(t, f, batches[:1])
	giveUp(t, c, f, batches[1], func(*kadm.DescribedTransaction) {})
	store(t, f, batches[2:])
	verify(t, c, batches)
	if n := f.Stats().Retries; n == 0 {
		t.Error("Retries = 0, want that it has begun again")
	}
}

// The brokers forget a transactional id that was not used for days.
func TestAProducerThatHasExpiredIsReplaced(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := openAmongFaults(t, c, nil)
	batches := []*listeners.Batch{sinktest.Transaction(10, 5), sinktest.Transaction(20, 30)}
	store(t, f, batches[:1])
	describes(c, kadm.DescribedTransaction{Err: kerr.TransactionalIDNotFound})
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce, kmsg.AddPartitionsToTxn}, Err: kerr.InvalidProducerIDMapping, Count: 1})
	store(t, f, batches[1:])
	verify(t, c, batches)
}

// What cannot be told from a second writer is taken for one, and so is what cannot be sent
// again.
func TestATransactionThatWasGivenUpIsNamed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts kafka.Options
		now  func(*kadm.DescribedTransaction)
		want string
	}{
		"another writer's state":      {now: func(d *kadm.DescribedTransaction) { d.State = "Empty" }, want: "taken over"},
		"another writer's epoch":      {now: func(d *kadm.DescribedTransaction) { d.ProducerEpoch++ }, want: "taken over"},
		"another writer's id":         {now: func(d *kadm.DescribedTransaction) { d.ProducerID++ }, want: "taken over"},
		"nobody may look":             {now: func(d *kadm.DescribedTransaction) { d.Err = kerr.TransactionalIDAuthorizationFailed }, want: "longer than TransactionTimeout, 1s"},
		"too much to be kept":         {opts: kafka.Options{MaxPendingBytes: 1}, now: func(*kadm.DescribedTransaction) {}, want: "longer than TransactionTimeout, 1s"},
		"nothing that says so at all": {now: func(d *kadm.DescribedTransaction) { d.Err = kerr.UnsupportedVersion }, want: "longer than TransactionTimeout, 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			tc.opts.TransactionTimeout = time.Second
			f := openAmongFaults(t, c, &tc.opts)
			batch := sinktest.Transaction(20, 3)
			batch.Size = 1000
			giveUp(t, c, f, batch, tc.now)
			err := f.Flush(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), shopTransactions) {
				t.Errorf("Flush = %v, want an error with %q that names the transactional id", err, tc.want)
			}
			f.Close()
			store(t, openAmongFaults(t, c, nil), []*listeners.Batch{batch})
			verify(t, c, []*listeners.Batch{batch})
		})
	}
}
