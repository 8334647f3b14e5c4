package listeners

import (
	"errors"
	"fmt"
)

// ErrClosed is the reason why a subscription or feed that somebody closed
// takes no more.
var ErrClosed = errors.New("listeners: closed")

var errGoexit = errors.New("the listener ended its goroutine with runtime.Goexit, as Fatal and Skip of a test do")

var errUnchangedJSON = errors.New("listeners: an unchanged column has no value to write as JSON")

// A ListenerError says which subscription ended at which batch, and why.
type ListenerError struct {
	Subscription string
	Position     Position // of the batch that the listener did not handle
	Err          error
}

// Error implements error.
func (e *ListenerError) Error() string {
	return fmt.Sprintf("subscription %q stopped at position %s: %v", e.Subscription, e.Position, e.Err)
}

// Unwrap returns the listener's error.
func (e *ListenerError) Unwrap() error { return e.Err }

// A LaggedError says that a subscription was too slow for its
// [OverflowDisconnect], or for another policy that could not help it.
type LaggedError struct {
	Subscription string
	Position     Position // up to which its listener has handled everything
	Lag          Lag      // how far behind that was
	Limit        int64    // its BacklogBytes
}

// Error implements error.
func (e *LaggedError) Error() string {
	return fmt.Sprintf("subscription %q lagged behind at %s: %d batches of %d bytes, the oldest of %s ago, with a limit of %d bytes; make its listener faster, raise BacklogBytes, or let it block",
		e.Subscription, e.Position, e.Lag.Batches, e.Lag.Bytes, e.Lag.Age, e.Limit)
}

// A HistoryError says that a subscription cannot go on from a position: its
// source does not have, or cannot know to have, all that came behind it.
type HistoryError struct {
	Subscription string   // "" where the source reports it
	Asked        Position // from where
	Oldest       Position // from where it could; the zero Position if from nowhere
}

// Error implements error.
func (e *HistoryError) Error() string {
	from := ", and keeps none"
	if !e.Oldest.IsZero() {
		from = fmt.Sprintf(", the oldest to go on from is %s", e.Oldest)
	}
	return fmt.Sprintf("subscription %q: its source does not have the history behind %s%s; ask for Current to begin with the present state, or keep more history",
		e.Subscription, e.Asked, from)
}

// A PanicError is a listener's panic, contained in its subscription.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine at the panic
}

// Error implements error. The stack is not part of it.
func (e *PanicError) Error() string { return fmt.Sprintf("listener panicked: %v", e.Value) }
