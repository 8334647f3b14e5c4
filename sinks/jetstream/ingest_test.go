package jetstream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

var always = jetstream.Options{FastIngest: jetstream.FastIngestAlways} //nolint:gochecknoglobals // is never changed

func TestFirehosesWithFastIngest(t *testing.T) {
	if testing.Short() {
		t.Skip("the same again")
	}
	t.Parallel()
	sinktest.Firehoses(t, beside(func(t testing.TB) sinktest.FirehoseServer {
		s := startFirehosesWith(t, always)
		s.Faults = 6 // the suite without has more
		return s
	}))
}

func TestFastIngestPredecessorsLastMessages(t *testing.T) { predecessorsLastMessages(t, &always) }
func TestFastIngestForeignMessageMakesNoGap(t *testing.T) { foreignMessageMakesNoGap(t, &always) }
func TestFastIngestTooLargeForTheStream(t *testing.T)     { tooLargeForTheStreamIsNamed(t, &always) }

func TestFastIngestClusterLeaderChanges(t *testing.T) {
	leaderChangesInMidLoad(t, always)
}

// ends counts the batches that firehoses end. The server stores no such message,
// but others can see it.
func ends(t *testing.T, nc *nats.Conn) *nats.Subscription {
	t.Helper()
	sub, err := nc.SubscribeSync("cdc.shop._control.batch.end.all")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return sub
}

func count(t *testing.T, sub *nats.Subscription, nc *nats.Conn) int {
	t.Helper()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	n, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func allowsBatches(t *testing.T, js natsjs.JetStream) bool {
	t.Helper()
	s, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config.AllowBatchPublish
}

// What decides whether messages go in batches.
func TestFastIngestIsChosenAtRunTime(t *testing.T) {
	t.Parallel()
	existing := natsjs.StreamConfig{Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}}
	allowing := existing
	allowing.AllowBatchPublish = true
	for name, tc := range map[string]struct {
		stream        *natsjs.StreamConfig
		opts          jetstream.Options
		allowed, used bool
	}{
		"always":                    {nil, always, true, true},
		"off":                       {nil, jetstream.Options{FastIngest: jetstream.FastIngestOff}, false, false},
		"little to do":              {nil, jetstream.Options{}, true, false},
		"message ids":               {nil, jetstream.Options{FastIngest: jetstream.FastIngestAlways, MsgID: true}, false, false},
		"a stream that allows it":   {&allowing, always, true, true},
		"a stream without":          {&existing, always, false, false},
		"off, a stream that allows": {&allowing, jetstream.Options{FastIngest: jetstream.FastIngestOff}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := natstest.Run(t)
			nc, js := connect(t, s), natstest.JetStream(t, s)
			if !serverHas(t, nc, 14) {
				if tc.stream == &allowing {
					needs(t, nc, 14)
				}
				tc.allowed, tc.used = false, false
			}
			if tc.stream != nil {
				if _, err := js.CreateStream(t.Context(), *tc.stream); err != nil {
					t.Fatal(err)
				}
			}
			seen := ends(t, nc)
			batches := []*listeners.Batch{transaction(1, 5), transaction(2, 30)}
			store(t, open(t, nc, &tc.opts), batches)
			verify(t, nc, batches)
			if got := allowsBatches(t, js); got != tc.allowed {
				t.Errorf("the stream allows batches: %t, want %t", got, tc.allowed)
			}
			if n := count(t, seen, nc); (n > 0) != tc.used {
				t.Errorf("%d batches were ended; want some: %t", n, tc.used)
			}
		})
	}
}

// By default batches begin under load, and end when it is over.
func TestFastIngestUnderLoad(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 14)
	seen := ends(t, nc)
	f := open(t, nc, nil)
	var batches []*listeners.Batch
	deadline := time.Now().Add(10 * time.Second)
	for n := 0; n == 0; n = count(t, seen, nc) {
		if time.Now().After(deadline) || len(batches) >= 200 {
			t.Skip("this machine never sends 10,000 messages a second")
		}
		var more []*listeners.Batch
		for range 10 {
			more = append(more, transaction(uint64(len(batches)+len(more)+1), 1000))
		}
		store(t, f, more)
		batches = append(batches, more...)
	}
	single := []*listeners.Batch{transaction(uint64(len(batches)+1), 3)}
	store(t, f, single)
	verify(t, nc, append(batches, single...))
}

// Nobody waits for what is stored, and nothing follows: Stored moves on all the
// same.
func TestFastIngestEndsABatchThatIsIdle(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 14)
	seen := ends(t, nc)
	f := open(t, nc, &always)
	for commit := range uint64(3) {
		if err := f.OnBatch(t.Context(), transaction(commit+1, 7)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what was sent is stored", func() bool { return f.Stored() == at(commit+1, 6) })
	}
	if n := count(t, seen, nc); n < 3 {
		t.Errorf("%d batches were ended, want 3 at least", n)
	}
}

// Somebody takes the permission back while a batch is open.
func TestFastIngestIsForbiddenMeanwhile(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc, js := connect(t, s), natstest.JetStream(t, s)
	needs(t, nc, 14)
	f := open(t, nc, &always)
	batches := history(random(t, 90), 2000)
	half := len(batches) / 2
	if err := feed(t.Context(), f, batches[:half]); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.AllowBatchPublish = false
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	store(t, f, batches[half:])
	verify(t, nc, batches)
}

// A stranger's message between two batches, where nothing is in flight.
func TestFastIngestForeignMessageBetweenBatches(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc, js := connect(t, s), natstest.JetStream(t, s)
	f := open(t, nc, &always)
	store(t, f, []*listeners.Batch{transaction(1, 5)})
	if _, err := js.Publish(t.Context(), "cdc.shop.hello", nil); err != nil {
		t.Fatal(err)
	}
	stream := fencedBehindAStranger(t, js, f, []*listeners.Batch{transaction(2, 5)})
	if n := stream.CachedInfo().State.LastSeq; n != 6 {
		t.Errorf("the stream's last sequence is %d, want 6, the stranger's", n)
	}
}

// On three servers nothing is stored behind a stranger's message that took the
// place of one in flight, not even for a moment.
func TestFastIngestClusterForeignMessage(t *testing.T) {
	t.Parallel()
	nc := cluster(t)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	opts := always
	opts.Replicas = 3
	f := openAnew(t, nc, &opts)
	if err := feed(t.Context(), f, []*listeners.Batch{transaction(1, 5)}); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Request("cdc.shop.hello", nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	stream := fencedBehindAStranger(t, js, f, []*listeners.Batch{transaction(2, 100)})
	if n := stream.CachedInfo().State.LastSeq; n != 6 {
		t.Errorf("the stream's last sequence is %d, want 6, the stranger's", n)
	}
}
