package kafka

import "github.com/rowcall/rowcall/sinks"

// The errors that callers decide by are those of package sinks.
type (
	// UnreachableError says that no broker answered.
	UnreachableError = sinks.UnreachableError
	// TopicError says why a topic cannot be used.
	TopicError = sinks.PlaceError
	// FencedError says that another writer with the same transactional id has
	// begun.
	FencedError = sinks.FencedError
	// TooLargeError names an event whose record is larger than allowed.
	TooLargeError = sinks.TooLargeError
	// EpochError says that a topic holds events of a newer incarnation of the
	// source.
	EpochError = sinks.EpochError
)
