package jetstream_test

import (
	"errors"
	"os"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

var asWholes = jetstream.Options{Atomic: true} //nolint:gochecknoglobals // is never changed

func TestFirehosesWithWholeTransactions(t *testing.T) {
	if os.Getenv("ROWCALL_FIREHOSE_FAULTS") == "" {
		t.Skip("the same suite again, for make soak; other tests have wholes, too")
	}
	t.Parallel()
	sinktest.Firehoses(t, beside(func(t testing.TB) sinktest.FirehoseServer { return startFirehosesWith(t, asWholes) }))
}

func TestAtomicPredecessorsLastMessages(t *testing.T) { predecessorsLastMessages(t, &asWholes) }
func TestAtomicForeignMessageMakesNoGap(t *testing.T) { foreignMessageMakesNoGap(t, &asWholes) }
func TestAtomicClusterLeaderChanges(t *testing.T)     { leaderChangesInMidLoad(t, asWholes) }
func TestAtomicTooLargeForTheStream(t *testing.T)     { tooLargeForTheStreamIsNamed(t, &asWholes) }

// A transaction is stored as one of the server's batches.
func TestTransactionsAreStoredAsAWhole(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	needs(t, nc, 12)
	f := open(t, nc, &asWholes)
	large := transaction(3, 1200)
	cut := parts(transaction(5, 40), 25)
	batches := []*listeners.Batch{transaction(1, 30), transaction(2, 1), large, transaction(4, 2), cut[0], cut[1], transaction(6, 999)}
	store(t, f, batches)
	verify(t, nc, batches)
	js := natstest.JetStream(t, s)
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	for seq, whole := range map[uint64]struct {
		number string // in its batch; "" for a message by itself
		commit bool
	}{
		1: {"1", false}, 29: {"29", false}, 30: {"30", true}, // the first transaction
		31: {}, 32: {}, 1231: {}, // one message, and too many
		1232: {"1", false}, 1233: {"2", true},
		1234: {}, 1273: {}, // in parts from the source
		1274: {"1", false}, 2272: {"999", true},
	} {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatalf("message %d: %v", seq, err)
		}
		if got := m.Header.Get("Nats-Batch-Sequence"); got != whole.number || (m.Header.Get("Nats-Batch-Commit") != "") != whole.commit {
			t.Errorf("message %d is number %q of its batch, commit %q; want %q, %t", seq, got, m.Header.Get("Nats-Batch-Commit"), whole.number, whole.commit)
		}
	}
}

func TestWholesInASmallWindow(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]*jetstream.Options{
		"few bytes": {Atomic: true, MaxPendingBytes: 5000}, "few messages": {Atomic: true, MaxPending: 5}, "message ids": {Atomic: true, MsgID: true},
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t, natstest.Run(t))
			needs(t, nc, 12)
			batches := history(random(t, 80), 2000)
			store(t, open(t, nc, opts), batches)
			verify(t, nc, batches)
		})
	}
}

func TestAStreamThatTakesNoWholes(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	open(t, nc, nil).Close()
	_, err := tryOpen(t, nc, &asWholes)
	wantStreamError(t, err, "set allow_atomic")
}

// A stranger's message takes the place of a transaction: nothing of it is stored.
func TestAtomicNothingOfATransactionBehindAStranger(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc, js := connect(t, s), natstest.JetStream(t, s)
	needs(t, nc, 12)
	f := open(t, nc, &asWholes)
	store(t, f, []*listeners.Batch{transaction(1, 5)})
	if _, err := js.Publish(t.Context(), "cdc.shop.hello", nil); err != nil {
		t.Fatal(err)
	}
	err := feed(t.Context(), f, []*listeners.Batch{transaction(2, 5), transaction(3, 1)})
	if err == nil {
		err = f.Flush(t.Context())
	}
	if _, ok := errors.AsType[*sinks.FencedError](err); !ok {
		t.Fatalf("behind a stranger's message: %v, want a FencedError", err)
	}
	var stream natsjs.Stream
	if stream, err = js.Stream(t.Context(), "CDC_SHOP"); err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.LastSeq; n != 6 {
		t.Errorf("the stream's last sequence is %d, want 6, the stranger's", n)
	}
}
