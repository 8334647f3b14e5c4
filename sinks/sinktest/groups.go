package sinktest

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A GroupServer is a broker with a firehose of [Database], for one test.
type GroupServer struct {
	// Partitions of the firehose.
	Partitions int
	// Store has the firehose store batches, in order after what it has stored
	// before. It returns when they are stored. A batch that is a part of a
	// transaction may come alone.
	Store func(t testing.TB, batches []*listeners.Batch)
	// Join connects a process that may become a member.
	Join func(t testing.TB) *GroupClient
	// Forget removes from the broker what was stored up to now.
	Forget func(t testing.TB)
	// Fault does the broker some harm that passes by itself, such as a restart. Nil:
	// members come and go only.
	Fault func(t testing.TB)
	// SlowDrains says that a member may take longer than the lease to give up a
	// partition, and those that wait for it lose nothing.
	SlowDrains bool
	// Markers says that resets and live markers of the first snapshot come to each
	// partition that has rows of it.
	Markers bool
}

// A GroupClient is one process.
type GroupClient struct {
	Broker sinks.GroupBroker
	// Wire is what its connections go through.
	Wire *Wire
}

// Groups runs the suite of a [sinks.GroupBroker]: what package sinks promises of
// groups. Start starts a broker for one test.
func Groups(t *testing.T, start func(t testing.TB) GroupServer) { groups(t, start, false) }

// GroupsAtOnce runs the suite with tests beside each other: each start starts a broker of its own.
func GroupsAtOnce(t *testing.T, start func(t testing.TB) GroupServer) { groups(t, start, true) }

func groups(t *testing.T, start func(t testing.TB) GroupServer, atOnce bool) {
	for _, test := range []struct {
		name string
		run  func(*groupBench)
	}{
		{"EveryPartitionHearsItsPartOfEachTransaction", groupHearsAll},
		{"ATransactionOfSeveralPartsIsWhole", groupWholeTransactions},
		{"SharesAreFair", groupSharesAreFair},
		{"LeavingFinishesTheBatchInHand", groupDrains},
		{"LeavingEndsAListenerThatTakesTooLong", groupDrainTimeout},
		{"GoesOnFromItsCheckpoint", groupGoesOn},
		{"BeginsWhereItIsToldTo", groupBegins},
		{"ListenerErrorEndsTheMember", groupListenerError},
		{"ListenerErrorIsRetried", groupRetries},
		{"ParkedHoldsBackTheCheckpoint", groupParked},
		{"KilledMemberIsReplaced", groupKilled},
		{"StaleOwnerIsStopped", groupStale},
		{"ASlowMemberCostsOthersNothing", groupSlowDrain},
		{"LostHistoryIsSaid", groupHistory},
		{"LostHistoryAsAReset", groupHistoryReset},
		{"PerKeyInOrderWhateverMembersDo", groupRandom},
	} {
		t.Run(test.name, func(t *testing.T) {
			if atOnce {
				t.Parallel()
			}
			test.run(newGroupBench(t, start(t)))
		})
	}
}
