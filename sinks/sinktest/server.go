package sinktest

import (
	"testing"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// A CommandServer is a broker that a test has for itself. It ends with the
// test.
type CommandServer struct {
	// Connect makes a client with a connection of its own.
	Connect func(t testing.TB) *CommandClient
	// Restart ends the broker and starts it again with what it has stored. It
	// returns when clients can connect. Connections come back by themselves.
	Restart func(t testing.TB)

	// Calm makes a client that gives the broker at least 20 seconds for every
	// answer, for tests that nothing is lost in. Nil: as Connect.
	Calm func(t testing.TB) *CommandClient

	// The following may be nil where a broker has nothing of the kind; the test
	// of it is then skipped.

	// Bounded makes a client whose new queues have room for this many
	// commands.
	Bounded func(t testing.TB, commands int) *CommandClient
	// Misconfigure gives a queue that does not exist yet something that a queue cannot
	// be made of.
	Misconfigure func(t testing.TB, queue string)
	// MaxMessage is a size in bytes that no message may have.
	MaxMessage int
	// Patience is how long a test waits for something to happen, for brokers
	// that take long to restart. Default: a minute.
	Patience time.Duration
	// NoMemory says that the broker stores again what is sent again. Where a
	// command is to arrive once all the same, the tests then serve with an
	// inbox.
	NoMemory bool
	// InWork returns an error if something of a queue is with a worker or on
	// its way to one, for brokers whose QueueStatus cannot tell.
	InWork func(t testing.TB, queue string) error
}

// A CommandClient is one process's connection to the broker.
type CommandClient struct {
	Broker sinks.CommandBroker
	// Kill ends the connection for good, as the death of the process does:
	// what was received is neither acknowledged nor given back.
	Kill func()
	// Cut breaks the connection, which then comes back.
	Cut func()
	// LoseAcks makes the next n confirmations of commands that were sent vanish on
	// their way. Nil: the test is skipped.
	LoseAcks func(n int)
}
