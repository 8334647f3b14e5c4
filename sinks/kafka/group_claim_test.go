package kafka

import (
	"context"
	"testing"

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
	s := newTestSession(t)
	s.client.PauseFetchPartitions(map[string][]int32{testTopic: {0}})
	s.begin(testTopic, 0, sinks.GroupMark{})
	s.wg.Wait()
	if paused := s.client.PauseFetchPartitions(nil); len(paused) > 0 {
		t.Errorf("paused after begin: %v, want nothing", paused)
	}
}
