package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

const testTopic = "cdc.shop.public.seats"

// newTestSession has a client that reaches nobody.
func newTestSession(t *testing.T) *groupSession {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := &groupSession{
		groups: &Groups{database: "shop"}, client: client, claims: make(map[string]map[int32]*groupClaim),
		member: &sinks.GroupMember{Group: "repricer", Own: func(context.Context, sinks.GroupClaim) error { return nil }},
	}
	s.ctx, s.end = context.WithCancelCause(t.Context())
	return s
}

// A partition whose reading was paused when it was revoked is read when it comes back.
func TestClaimBeginsUnpaused(t *testing.T) {
	t.Parallel()
	s := newTestSession(t)
	s.client.PauseFetchPartitions(map[string][]int32{testTopic: {0}})
	s.begin(testTopic, 0, sinks.GroupMark{})
	s.wg.Wait()
	if paused := s.client.PauseFetchPartitions(nil); len(paused) > 0 {
		t.Errorf("paused after begin: %v, want nothing", paused)
	}
}

// The client goes on before what a leader has lost. What it fetches then is not
// what comes next.
func TestClaimTellsOfALogThatWasTruncated(t *testing.T) {
	t.Parallel()
	s := newTestSession(t)
	c := s.newClaim(testTopic, 0, sinks.GroupMark{Next: 7})
	s.claims[testTopic] = map[int32]*groupClaim{0: c}
	push := func(offset int64) {
		c.push(&kgo.FetchTopicPartition{FetchPartition: kgo.FetchPartition{Records: []*kgo.Record{{Offset: offset}}}})
	}
	push(7)
	loss := kgo.FetchPartition{Err: &kgo.ErrDataLoss{Topic: testTopic, ConsumedTo: 8, ResetTo: 5}}
	if err := s.failure(kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: testTopic, Partitions: []kgo.FetchPartition{loss}}}}}); err != nil {
		t.Fatalf("failure: %v", err)
	}
	push(5)
	if records, _, hole := c.pop(); len(records) != 1 || records[0].Offset != 7 || hole {
		t.Errorf("pop = %d records, hole %v; want the one from before the loss", len(records), hole)
	}
	if records, _, hole := c.pop(); len(records) != 0 || !hole {
		t.Errorf("pop = %d records, hole %v; want a hole", len(records), hole)
	}
	c.seek(sinks.GroupMark{Next: 0})
	push(6)
	s.seek()
	push(0)
	if records, _, hole := c.pop(); len(records) != 1 || records[0].Offset != 0 || hole {
		t.Errorf("pop after a seek = %d records, hole %v; want offset 0", len(records), hole)
	}
}

func TestClaimPausesForLargeRecords(t *testing.T) {
	t.Parallel()
	s := newTestSession(t)
	c := s.newClaim(testTopic, 0, sinks.GroupMark{})
	paused := func() bool { return len(s.client.PauseFetchPartitions(nil)) > 0 }
	for i, want := range []bool{false, true} {
		c.push(&kgo.FetchTopicPartition{Topic: testTopic, FetchPartition: kgo.FetchPartition{
			Records: []*kgo.Record{{Offset: int64(i), Value: make([]byte, claimBytes*2/3)}},
		}})
		if paused() != want {
			t.Errorf("paused after %d records of 2/3 of the limit: %v, want %v", i+1, paused(), want)
		}
	}
	c.pop()
	if paused() {
		t.Error("still paused when all is taken")
	}
}

// That a listener is stuck is not lost behind the reason why the session ends,
// and the partition stays for a lease.
func TestSessionKeepsTheFirstErrorOfOwn(t *testing.T) {
	t.Parallel()
	s := newTestSession(t)
	stuck := &sinks.GroupStuckError{Group: "repricer"}
	s.member.Lease = 200 * time.Millisecond
	s.member.Own = func(context.Context, sinks.GroupClaim) error { return stuck }
	begun := time.Now()
	s.begin(testTopic, 0, sinks.GroupMark{})
	s.end(errSilent)
	s.revoked(t.Context(), s.client, map[string][]int32{testTopic: {0}})
	if took := time.Since(begun); took < s.member.Lease {
		t.Errorf("revoked after %s, want a lease of %s", took, s.member.Lease)
	}
	s.fail(errSilent)
	if !errors.Is(s.failed, stuck) {
		t.Errorf("failed = %v, want %v", s.failed, stuck)
	}
}
