package sinks

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrQueueFull says that the broker has no room. The command is not
	// stored; Send waits for room as long as it may.
	ErrQueueFull = errors.New("the queue is full")
	// ErrNoDeadLetter says that there is no such dead letter (any more).
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrCommandsClosed is returned after Close.
	ErrCommandsClosed = errors.New("commands are closed")
	// ErrLeaseLost is the cause of the end of a handler's context when the
	// broker could not be told for a whole lease that the handler is alive:
	// another worker may have begun the same command.
	ErrLeaseLost = errors.New("the lease on the command is lost: the broker was out of reach for too long")
	// ErrDrained is the cause of the end of a handler's context when it took
	// longer than the drain may.
	ErrDrained = errors.New("the worker is shutting down")
	// ErrUnclear is wrapped by the error of an [Inbox] that cannot know whether
	// the command was carried out. The command becomes a dead letter.
	ErrUnclear = errors.New("it is unclear whether the command was carried out")
)

// A QueueError says why a queue cannot be used. It is final: what it names has
// to be put right first.
type QueueError struct {
	Queue  string
	Reason string // and the remedy
	Err    error  // the cause, if the broker gave one
}

// Error implements error.
func (e *QueueError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("queue %s: %s", e.Queue, e.Reason)
	}
	return fmt.Sprintf("queue %s: %s: %v", e.Queue, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *QueueError) Unwrap() error { return e.Err }

// An OwnerError says that a queue is served by another service. A command has
// one owner: two services on one queue would each get some of its commands.
type OwnerError struct {
	Queue string
	Owner string // who serves the queue
	Want  string // who wanted to
}

// Error implements error.
func (e *OwnerError) Error() string {
	return fmt.Sprintf("queue %s belongs to %q, and %q wants to serve it: a command has one owner; use a queue of its own, or set CommandsOptions.Owner to %q if this is the same service",
		e.Queue, e.Owner, e.Want, e.Owner)
}

// A CommandTooLargeError names a command that is larger than the broker
// allows. It is not stored.
type CommandTooLargeError struct {
	Queue, Name, ID string
	Size            int64 // of the message in bytes; 0 if only the broker knows
	Limit           int64 // 0 if unknown
}

// Error implements error.
func (e *CommandTooLargeError) Error() string {
	size, limit := "", ""
	if e.Size > 0 {
		size = fmt.Sprintf(" of %d bytes", e.Size)
	}
	if e.Limit > 0 {
		limit = fmt.Sprintf(" of %d bytes", e.Limit)
	}
	return fmt.Sprintf("command %s for queue %s, id %s: its message%s is larger than the broker's limit%s; raise that, or store the body elsewhere and send where it is",
		e.Name, e.Queue, e.ID, size, limit)
}

// A SendError says that a command could not be confirmed as stored. It may be
// stored nevertheless, unless Err is [ErrQueueFull]: send it again with the same
// ID.
type SendError struct {
	Queue, Name, ID string
	Tries           int
	Err             error
}

// Error implements error.
func (e *SendError) Error() string {
	return fmt.Sprintf("command %s for queue %s is not confirmed after %d tries: %v; send it again with the id %s", e.Name, e.Queue, e.Tries, e.Err, e.ID)
}

// Unwrap returns the cause.
func (e *SendError) Unwrap() error { return e.Err }

// A CallTimeoutError says that no reply came in time. The command may have been
// carried out: call again with the same ID, which an [Inbox] answers from memory.
// No worker begins it after Expires.
type CallTimeoutError struct {
	Queue, Name, ID string
	Expires         time.Time
	Err             error // why the wait ended
}

// Error implements error.
func (e *CallTimeoutError) Error() string {
	return fmt.Sprintf("no reply to command %s for queue %s, id %s: %v", e.Name, e.Queue, e.ID, e.Err)
}

// Unwrap returns the cause.
func (e *CallTimeoutError) Unwrap() error { return e.Err }

// A CommandFailedError is the reply to a call whose command became a dead
// letter.
type CommandFailedError struct {
	Queue, Name, ID string
	Reason          DeadReason
	Attempts        int
	Text            string // of the last error
}

// Error implements error.
func (e *CommandFailedError) Error() string {
	return fmt.Sprintf("command %s for queue %s, id %s, failed (%s, %d attempts): %s", e.Name, e.Queue, e.ID, e.Reason, e.Attempts, e.Text)
}

// A DrainError says that commands were still running when the time to drain
// was over. Their handlers' contexts were ended and they were given back.
type DrainError struct {
	Queue      string
	Unfinished int
	Timeout    time.Duration
}

// Error implements error.
func (e *DrainError) Error() string {
	return fmt.Sprintf("queue %s: %d commands were still running after %s of draining and were given back", e.Queue, e.Unfinished, e.Timeout)
}

// A HandlerPanicError is the panic of a handler, contained in its attempt.
type HandlerPanicError struct {
	Value any
	Stack []byte // of the goroutine at the panic
}

// Error implements error. The stack is not part of it.
func (e *HandlerPanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// permanentError is what [Permanent] makes.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error of a handler as one that another attempt would not
// mend: the command becomes a dead letter at once. It returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

func isPermanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok
}

// final reports whether an error of a broker will not pass.
func final(err error) bool {
	if _, ok := errors.AsType[*QueueError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*OwnerError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*CommandTooLargeError](err); ok {
		return true
	}
	return errors.Is(err, ErrCommandsClosed)
}

// cause is the reason why ctx ended, if it has, or err.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
