package jetstream

import (
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// A StreamError says why a stream cannot be the firehose's. It is final: what
// it names has to be put right first.
type StreamError struct {
	Stream string
	Reason string // and the remedy
	Err    error  // the cause, if the server gave one
}

// Error implements error.
func (e *StreamError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("stream %s: %s", e.Stream, e.Reason)
	}
	return fmt.Sprintf("stream %s: %s: %v", e.Stream, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *StreamError) Unwrap() error { return e.Err }

// A FencedError says that another writer has stored something in the stream.
// It is final.
type FencedError struct {
	Stream   string
	Expected uint64 // the last sequence that this firehose knows of
	Sequence uint64 // the last sequence in the stream
	Subject  string // of the message there; "" if it is gone
	// Position of the message there; zero if it has none.
	Position listeners.Position
}

// Error implements error.
func (e *FencedError) Error() string {
	what := "a message without a position"
	if !e.Position.IsZero() {
		what = "position " + e.Position.String()
	}
	return fmt.Sprintf("another writer is on stream %s: its last message is %d (%s, subject %q), not %d; a stream has one writer: stop the other one, then start this one again",
		e.Stream, e.Sequence, what, e.Subject, e.Expected)
}

// A TooLargeError names an event whose message is larger than the server or
// the stream allows. Nothing was dropped: the event and all that follow are
// not stored.
type TooLargeError struct {
	Collection string
	Key        string // as [listeners.Key.String]
	Op         listeners.Op
	Position   listeners.Position
	Size       int64 // of the message in bytes; 0 if only the server knows
	Limit      int64 // 0 if unknown
	Remedy     string
}

// Error implements error.
func (e *TooLargeError) Error() string {
	size := ""
	if e.Size > 0 {
		size = fmt.Sprintf(" of %d bytes", e.Size)
	}
	limit := ""
	if e.Limit > 0 {
		limit = fmt.Sprintf(" of %d bytes", e.Limit)
	}
	return fmt.Sprintf("%s of %s key %q at %s: its message%s is larger than the limit%s; %s",
		e.Op, e.Collection, shorten(e.Key), e.Position, size, limit, e.Remedy)
}

func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// An EpochError says that the stream holds events of a newer incarnation of
// the source than the one that is read now: somebody restored an old database,
// or points at the wrong one. It is final.
type EpochError struct {
	Stream string
	Tail   listeners.Position // of the stream's last message
	Got    listeners.Position
}

// Error implements error.
func (e *EpochError) Error() string {
	return fmt.Sprintf("stream %s ends at position %s, but the source sends %s, of an older epoch: the stream belongs to another or a newer database; check the database URL, or use another stream",
		e.Stream, e.Tail, e.Got)
}
