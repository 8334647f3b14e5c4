package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// The latest state goes on, too, where brokers have given a transaction up: within the
// changes of rows, and where what a truncate or a reset finds in the topics is
// removed.
func TestATransactionOfTheLatestStateThatWasGivenUpIsSentAgain(t *testing.T) {
	t.Parallel()
	reset := snapshot(20, map[string]string{"x": "9"})
	for name, batches := range map[string][]*listeners.Batch{
		"changes":  {transaction(20, update("a", "x", "9"), remove("b"))},
		"truncate": {transaction(20, create("c", "3"), truncate(), create("x", "9"))},
		"reset":    append([]*listeners.Batch{transaction(15, create("c", "3"))}, reset...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			f := latest(t, c, kafka.Options{TransactionalID: shopTransactions, TransactionTimeout: time.Second})
			follower := mirrorNotes(t, c)
			store(t, f, []*listeners.Batch{transaction(10, create("a", "1"), create("b", "2"))})
			fed := make(chan error, 1)
			giveUpDuring(t, c, func() {
				for _, b := range batches {
					if err := f.OnBatch(t.Context(), b); err != nil {
						fed <- err
						return
					}
				}
				fed <- nil
			}, func(*kadm.DescribedTransaction) {})
			if err := <-fed; err != nil {
				t.Fatal(err)
			}
			store(t, f, []*listeners.Batch{transaction(30, create("y", "10"), truncate(), create("z", "11"), create("x", "12"))})
			if n := f.Stats().Retries; n == 0 {
				t.Error("Retries = 0, want that it has begun again")
			}
			want := map[string]string{"z": "11", "x": "12"}
			wantTable(t, c, "the table", keyed(want))
			wantPages(t, "a mirror that follows", follower, want)
		})
	}
}
