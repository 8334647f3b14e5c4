package sinks

import (
	"context"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A Log is a firehose as a broker stores it, to be read by a [Source]. It is
// what a broker implements; everything else about reading is Source's.
//
// Its methods are called by several goroutines, one for Run and one for each
// subscription that is told the present state, each once or a few times. They
// block while the broker is away, until ctx ends, whose cause they then return.
// Passing faults are tried again within; every error is final, apart from a
// [HistoryError], which sends the caller to SeekState.
type Log interface {
	// Name says what is read, for errors and logs, such as "stream CDC_SHOP".
	Name() string
	// Seek returns a reader of what is stored from start on. If what start
	// names was there and is gone, or nobody can know, the error is a
	// [HistoryError].
	Seek(ctx context.Context, start Start) (LogReader, LogPlace, error)
	// SeekState returns a reader of messages that add up to the whole present
	// state, and go on from there. If the log does not hold such, the error is
	// a [HistoryError], here or by Next.
	SeekState(ctx context.Context) (LogReader, LogPlace, error)
}

// A LogPlace is where a [LogReader] begins.
type LogPlace struct {
	// Origin says that the first message is the very first one of the log, so a
	// snapshot there has no reset of its own.
	Origin bool
	// Place and Position are those of the last message before, zero if that is
	// not known. Open says that its transaction may go on.
	Place    uint64
	Position listeners.Position
	Open     bool
}

// A LogReader hands out messages in the order of their positions, none missing
// and none twice, apart from messages that somebody has deleted. It makes up for lost
// connections and restarted brokers. Next and Close are called by one goroutine
// at a time, Lag by any, also after Close.
type LogReader interface {
	// Next returns what comes next, as much as there is up to a bound of the
	// reader's own. It blocks until there is something, ctx ends, whose cause it
	// returns, or something is wrong for good. It returns no messages and nil
	// when it has found that nothing more is stored at present; once at least
	// if that is so from the beginning.
	//
	// The slice is the reader's and good until the next call. What its messages
	// refer to is the caller's, who keeps bodies for long.
	//
	// A [HistoryError] says that what was to be read next is gone, or that the
	// log is another one than before. What the reader has returned was right.
	Next(ctx context.Context) ([]LogMessage, error)
	// Describe says where a message of the last slice is stored, for errors and
	// logs, such as "sequence 17".
	Describe(place uint64) string
	// Lag asks the broker what is stored behind the message with a place. It
	// blocks for one question and its answer, and tries once.
	Lag(ctx context.Context, place uint64) (SourceLag, error)
	// Close ends what the reader has started, and waits for it. It does not
	// block for long.
	Close()
}

// A LogMessage is one message of a log.
type LogMessage struct {
	// Place numbers the messages of a reader upwards, with gaps. What it counts
	// is the broker's affair; none is 0.
	Place uint64
	// Address is the dotted name.
	Address string
	// Attribute returns the plain value of an attribute, "" if it is absent. A
	// message without the attribute "sequence" is no event.
	Attribute func(name string) string
	Body      []byte
	// Tip is true for the last message that was stored when the reader was made,
	// and for all that were stored later, or if nothing is stored behind it.
	Tip bool
}

// A SourceLag is how far a [Source] is behind its log. How far a listener is
// behind its source, [listeners.Subscription.Lag] says.
type SourceLag struct {
	Messages uint64        // stored and not handed on yet
	Age      time.Duration // since the oldest of them was stored; 0 if there is none
}
