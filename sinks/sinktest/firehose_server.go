package sinktest

import (
	"context"
	"testing"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// A FirehoseServer is a broker that a test has for itself. It ends with the
// test.
type FirehoseServer struct {
	// Faults is how many of each kind a test injects, unless the environment says
	// it. Default: 20.
	Faults int
	// Lanes is how many orders there are: 1 for a stream, the number of
	// partitions for topics.
	Lanes int
	// Connect makes the firehose of [Database] as a process of its own would, with
	// a connection of its own. It is not open yet.
	Connect func(t testing.TB, o FirehoseSetup) *FirehoseClient
	// Contents returns what a reader finds at this moment, by lane, a [Line] for
	// each message. Bodies that were parked are fetched.
	Contents func(t testing.TB) [][]string
	// Restart ends the broker and starts it again with what it has stored.
	// Connections come back by themselves.
	Restart func(t testing.TB)
	// Fill makes the broker refuse what it is sent, for want of room, until release
	// is called.
	Fill func(t testing.TB) (release func())
	// MaxMessage is a size in bytes that no message may have.
	MaxMessage int
	// Grace is how long after Open a firehose takes another writer for its
	// predecessor.
	Grace time.Duration
	// Unfenced says that nothing keeps two writers apart. The tests of that
	// are left out, and a process that is killed is waited for.
	Unfenced bool
	// Misfits are what a server may have, by name, that a firehose cannot write
	// to.
	Misfits map[string]FirehoseMisfit
	// Unpark fetches a body that was parked.
	Unpark func(ctx context.Context, ref string) ([]byte, error)
}

// A FirehoseSetup is how a test wants a firehose.
type FirehoseSetup struct {
	Narrow   bool // the window is so small that it is waited for
	TooLarge sinks.TooLargePolicy
	// Patient is for a test in which an answer that is late is not to count as lost: as
	// long as Grace is waited for it at least.
	Patient bool
}

// A FirehoseClient is one process.
type FirehoseClient struct {
	Firehose *sinks.Firehose
	// Kill ends the connections for good, as the death of the process does,
	// with messages in flight. It may be called during OnBatch.
	Kill func()
	// Cut breaks the connections, which then come back.
	Cut func()
	// LoseAcks makes the next n confirmations vanish on their way.
	LoseAcks func(n int)
}

// A FirehoseMisfit is one of [FirehoseServer].Misfits.
type FirehoseMisfit struct {
	Make func(t testing.TB) // makes it
	Want string             // words of the error
}
