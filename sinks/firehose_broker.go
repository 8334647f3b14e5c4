package sinks

import (
	"context"

	"github.com/rowcall/rowcall/listeners"
)

// A FirehoseBroker stores messages. Users hold a [Firehose], which adds what is
// the same for every broker: encoding and partitions, which messages are stored
// already, the bounded window of those in flight, trying again, positions,
// figures. Package sinktest has the suite that a broker passes.
//
// Open, Lanes, Send, Push, Recover and Close are called by one goroutine at a
// time, never during each other; the rest from anywhere. The broker tells what
// became of messages through its [FirehoseAcks], from goroutines of its own.
//
// An error is final if it is a [PlaceError], a [FencedError], an [EpochError], a
// [TooLargeError] or made by [Permanent]: it ends the firehose, and nothing but
// Close is called after it. Other errors may pass, and then the firehose calls
// Recover until it succeeds. The broker retries nothing itself, except where its
// client library does.
type FirehoseBroker interface {
	// Name returns what holds the events, such as the name of a stream. It does
	// not block.
	Name() string
	// Where returns the addresses of the servers, without credentials. It does
	// not block.
	Where() string

	// Open makes the place that messages go to, or checks the one that exists,
	// and reads where it ends. It is called once, before all others, and blocks
	// for round trips. It returns the position up to which everything is stored,
	// zero if nothing is or if that cannot be told of the place as a whole. A
	// partial failure leaves what was made in the place and nothing in the
	// process.
	Open(ctx context.Context, acks *FirehoseAcks) (listeners.Position, error)

	// Lanes returns where a message goes: one lane, or several if it concerns
	// all of them. Within a lane messages are stored in the order of Send. The
	// slice is the broker's and stays as it is until the next call; called again
	// for the same message before anything else, it returns the same. It may
	// block where a place has to be made first.
	Lanes(ctx context.Context, m *FirehoseMessage) ([]*FirehoseLane, error)

	// Send begins to store a message in its lane and does not wait for the end of
	// that. Nil promises nothing; FirehoseAcks does. After an error the message
	// was not sent and never will be. What m points to is the broker's only until
	// Send returns.
	Send(ctx context.Context, m *FirehoseMessage) error

	// Push says that nothing more may come for a while: a broker that gathers
	// messages sends them now. It does not wait for acknowledgements.
	Push(why FirehosePush)

	// Recover is called after FirehoseAcks.Fail, with the error that was given
	// there. It waits until no message in flight can still be stored, finds out
	// where the place ends, and sets the tails of its lanes. It returns the
	// position up to which everything is stored, zero if that cannot be told.
	// After nil the firehose sends everything behind the tails again and counts
	// from 1. After an error that may pass it is called again, with a pause. With
	// a TooLargeError it has succeeded too, but the message at the error's
	// Position, the first one behind the tails, will not be stored.
	Recover(ctx context.Context, fault error) (listeners.Position, error)

	// Close ends what Open started and waits for it, but for no
	// acknowledgement. After it has returned, FirehoseAcks is not used any more.
	// It is called once, and only after an Open that succeeded.
	Close()
}

// A FirehoseShaper is a broker that stores something else than the batches as they
// are.
type FirehoseShaper interface {
	FirehoseBroker
	// Shape is called in place of storing b, by OnBatch, on its goroutine. It hands the
	// batches that are to be stored to store, and waits with flush where it must
	// know that they are. An error is final, unless ctx ended. It does not keep
	// b, but store keeps what it is given.
	Shape(ctx context.Context, b *listeners.Batch, store func(context.Context, *listeners.Batch) error, flush func(context.Context) error) error
	// Plain turns a position of a shaped batch into that of the source, up to
	// which everything is stored then. It is called from anywhere and does not block.
	Plain(p listeners.Position) listeners.Position
}

// A FirehoseEmptier is a broker that can tell whether its place lacks what was stored.
type FirehoseEmptier interface {
	FirehoseBroker
	// Empty is for [Firehose.Empty]: called from anywhere after Open. It does not block.
	Empty() bool
}

// A FirehoseLane is a part of a broker's place with an order of its own: a
// stream, or a partition of a topic. It belongs to the broker, which makes it
// and sets Tail in Open, Lanes and Recover; the firehose reads it and sets Begun.
type FirehoseLane struct {
	Place     string // as in errors, such as "topic cdc.shop.public.seats"
	Topic     string // for the broker
	Partition int    // for the broker
	// Tail is the position of the last message that is stored; what is at or
	// before it is not sent. Zero: nothing is known to be stored.
	Tail listeners.Position
	// Begun is true if it holds a message, or held one. Until then it takes no
	// resets and live markers: nobody has read there what could be stale.
	Begun bool
	// Filling is true if that last message is of a snapshot and not its end, or is
	// [Frame].Filling itself: the source's next run goes on with the snapshot, and tells
	// changes first. It is set in Open alone.
	Filling bool
}

// A FirehoseMessage is a message on its way into a lane.
type FirehoseMessage struct {
	Frame *Frame
	Batch *listeners.Batch
	// Index is that of the event in Batch; 0 in a reset and a live marker, which
	// have none.
	Index    int
	Position listeners.Position
	// Lane and Number are set for Send. Numbers begin with 1 at Open and after
	// each Recover, and have no gaps.
	Lane   *FirehoseLane
	Number uint64
}

// Marker reports whether the message is a reset or a live marker.
func (m *FirehoseMessage) Marker() bool { return isMarker(m.Batch) }

// A FirehosePush is why a firehose has nothing more to send for now.
type FirehosePush uint8

const (
	// PushFull: it waits for room.
	PushFull FirehosePush = iota
	// PushPart: a batch is sent, and the rest of its transaction follows.
	PushPart
	// PushWhole: a batch is sent, and no transaction is open behind it.
	PushWhole
	// PushFlush: somebody waits until everything is stored, even a part of a
	// transaction.
	PushFlush
)

func isMarker(b *listeners.Batch) bool {
	return b.Kind == listeners.Reset || b.Kind == listeners.Live
}

// messagePosition returns the position of message i of a batch.
func messagePosition(b *listeners.Batch, i int) listeners.Position {
	if isMarker(b) {
		return b.Position
	}
	return b.Events[i].Position
}
