package sinks

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// An UnreachableError says that no server of a broker answered. It may pass. It
// holds no credentials.
type UnreachableError struct {
	Broker  string   // such as "NATS"
	Servers []string // host:port
	Remedy  string   // "" if there is nothing to say beyond Err
	Err     error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	s := fmt.Sprintf("%s is not reachable at %s: %v", e.Broker, strings.Join(e.Servers, ", "), e.Err)
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// A PlaceError says why a stream, a bucket or a topic cannot be used. It is
// final: what it names has to be put right first.
type PlaceError struct {
	Place  string // such as "stream CDC_SHOP"
	Reason string // and the remedy
	Err    error  // the cause, if the broker gave one
}

// Error implements error.
func (e *PlaceError) Error() string {
	if e.Err == nil {
		return e.Place + ": " + e.Reason
	}
	return fmt.Sprintf("%s: %s: %v", e.Place, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *PlaceError) Unwrap() error { return e.Err }

// A FencedError says that another writer has taken the place over. It is final.
type FencedError struct {
	Place  string
	Reason string // how it shows, and the remedy
	// Position of what the other one stored last; zero if that cannot be told.
	Position listeners.Position
	Err      error // what the broker said, if it did
}

// Error implements error.
func (e *FencedError) Error() string {
	s := fmt.Sprintf("another writer is on %s: %s", e.Place, e.Reason)
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}

// Unwrap returns the cause.
func (e *FencedError) Unwrap() error { return e.Err }

// An EpochError says that a place holds events of a newer incarnation of the
// source than the one that is read now: somebody restored an old database, or
// points at the wrong one. It is final.
type EpochError struct {
	Place string
	Tail  listeners.Position // of the last message there
	Got   listeners.Position
}

// Error implements error.
func (e *EpochError) Error() string {
	return fmt.Sprintf("%s ends at position %s, but the source sends %s, of an older epoch: it belongs to another or a newer database; check the database URL, or write to another place",
		e.Place, e.Tail, e.Got)
}

// A TooLargeError names an event whose message is larger than its place allows.
// Nothing was dropped: the event and all that follow are not stored.
type TooLargeError struct {
	Place      string
	Collection string // "" for a reset
	Key        string // as [listeners.Key.String], shortened
	Op         listeners.Op
	Position   listeners.Position
	Size       int64 // of the message in bytes, about; 0 if only the broker knows
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
	what := "a reset"
	if e.Collection != "" {
		what = fmt.Sprintf("%s of %s key %q", e.Op, e.Collection, e.Key)
	}
	return fmt.Sprintf("%s: %s at %s: its message%s is larger than the limit%s; %s", e.Place, what, e.Position, size, limit, e.Remedy)
}

// name fills in what a message is about.
func (e *TooLargeError) name(b *listeners.Batch, i int) {
	e.Position = messagePosition(b, i)
	if isMarker(b) {
		return
	}
	event := &b.Events[i]
	e.Collection, e.Op, e.Key = event.Schema.Collection(), event.Op, event.Key().String()
	if most := 200; len(e.Key) > most {
		e.Key = e.Key[:most] + "..."
	}
}

// finalForFirehose reports whether an error of a firehose's broker will not
// pass.
func finalForFirehose(err error) bool {
	if isPermanent(err) || errors.Is(err, listeners.ErrClosed) {
		return true
	}
	if _, ok := errors.AsType[*PlaceError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*FencedError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*EpochError](err); ok {
		return true
	}
	_, ok := errors.AsType[*TooLargeError](err)
	return ok
}
