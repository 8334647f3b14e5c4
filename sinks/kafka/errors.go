package kafka

import (
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// An UnreachableError says that no broker answered. It may pass.
type UnreachableError struct {
	Brokers string // without users and passwords
	Err     error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no Kafka broker at %s answers: %v; check the address, that a broker runs there, and that the security settings (tls, sasl) are those of its listener", e.Brokers, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// A TopicError says why a topic cannot be the firehose's. It is final: what it
// names has to be put right first.
type TopicError struct {
	Topic  string
	Reason string // and the remedy
	Err    error  // the cause, if the broker gave one
}

// Error implements error.
func (e *TopicError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("topic %s: %s", e.Topic, e.Reason)
	}
	return fmt.Sprintf("topic %s: %s: %v", e.Topic, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *TopicError) Unwrap() error { return e.Err }

// A FencedError says that another writer with the same transactional id has
// begun. It is final.
type FencedError struct {
	TransactionalID string
	Err             error // what the broker said
}

// Error implements error.
func (e *FencedError) Error() string {
	return fmt.Sprintf("another writer has taken over with transactional id %q: stop one of the two (%v)", e.TransactionalID, e.Err)
}

// Unwrap returns the cause.
func (e *FencedError) Unwrap() error { return e.Err }

// A TooLargeError names an event whose record is larger than allowed. Nothing
// was dropped: the event and all that follow are not stored.
type TooLargeError struct {
	Topic      string
	Collection string
	Key        string // as [listeners.Key.String], shortened
	Op         listeners.Op
	Position   listeners.Position
	Size       int // of the record, about
	Limit      int
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s of %s key %q at %s: its record of %d bytes is larger than the limit of %d; raise MaxMessageBytes and max.message.bytes of topic %s, or leave the large column out of the publication",
		e.Op, e.Collection, e.Key, e.Position, e.Size, e.Limit, e.Topic)
}

// An EpochError says that a topic holds events of a newer incarnation of the
// source than the one that is read now: somebody restored an old database, or
// points at the wrong one. It is final.
type EpochError struct {
	Topic string
	Tail  listeners.Position // of the last record
	Got   listeners.Position
}

// Error implements error.
func (e *EpochError) Error() string {
	return fmt.Sprintf("topic %s ends at position %s, but the source sends %s, of an older epoch: the topic belongs to another or a newer database; check the database URL, or delete the topic",
		e.Topic, e.Tail, e.Got)
}
