package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A real broker compacts all the time, and forgets tombstones at once, while
// writers die.
func TestRealBrokerCompactsTheLatestState(t *testing.T) {
	b := runBroker(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(t.Context(), partitions, 1, map[string]*string{
		"cleanup.policy": new("compact"), "min.cleanable.dirty.ratio": new("0"), "segment.ms": new("50"), "delete.retention.ms": new("0"),
	}, notesTopic)
	if err != nil {
		t.Fatal(err)
	}
	batches, rows := history(random(t, 21), 400)
	follower := mirrorNotes(t, b.cluster)
	const lives = 6
	for i := 1; i <= lives; i++ {
		w := new(suiteWire)
		f := latest(t, b.cluster, kafka.Options{Client: []kgo.Opt{kgo.Dialer(w.dial)}})
		if err := sinktest.Feed(t.Context(), f, batches[:len(batches)*i/lives]); err != nil {
			t.Fatal(err)
		}
		if i == lives {
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			w.kill()
		}
		f.Close()
	}
	b.settle(t, notesTopic)
	wantTable(t, b.cluster, "the table", keyed(rows))
	wantPages(t, "a mirror that follows", follower, rows)

	// All but what is after the last segment that was begun is compacted.
	f := latest(t, b.cluster, kafka.Options{})
	commit := batches[len(batches)-1].Position.Commit
	deadline := time.Now().Add(3 * time.Minute)
	for {
		n := len(records(t, b.cluster, notesTopic))
		if n < 3*len(rows)+200 {
			t.Logf("%d records for %d rows", n, len(rows))
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records for %d rows, want that they are compacted", n, len(rows))
		}
		// Segments end when something is appended.
		commit++
		store(t, f, []*listeners.Batch{transaction(commit, create("a", "1"), create("b", "2"), create("c", "3"), create("d", "4"))})
		for _, title := range []string{"a", "b", "c", "d"} {
			rows[title] = string('1' + rune(title[0]-'a'))
		}
	}
	f.Close()
	b.settle(t, notesTopic)
	wantTable(t, b.cluster, "the table that was compacted", keyed(rows))
	wantPages(t, "a mirror of what was compacted", mirrorNotes(t, b.cluster), rows)
	wantPages(t, "a mirror that follows", follower, rows)
	store(t, latest(t, b.cluster, kafka.Options{}), []*listeners.Batch{transaction(commit+1, truncate(), create("last", "5"))})
	b.settle(t, notesTopic)
	wantTable(t, b.cluster, "the table that was truncated", map[string]string{"last": "last=5"})
	wantPages(t, "a mirror of what was truncated", mirrorNotes(t, b.cluster), map[string]string{"last": "5"})
	wantPages(t, "a mirror that follows", follower, map[string]string{"last": "5"})
}
