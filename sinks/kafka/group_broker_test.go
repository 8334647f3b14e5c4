package kafka_test

import (
	"testing"

	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A member of a consumer group of a real broker is killed: nothing is lost, and the
// events of a key stay in order.
func TestRealBrokerReplacesAKilledMember(t *testing.T) {
	b := runBroker(t)
	sinktest.GroupMemberKilled(t, groupServerOn(t, b.cluster, nil))
}
