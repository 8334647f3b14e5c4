package jetstream

import "github.com/rowcall/rowcall/sinks"

// The errors of firehoses and sources that callers decide by are those of
// package sinks.
type (
	// StreamError says why a stream cannot be used.
	StreamError = sinks.PlaceError
	// FencedError says that another writer has stored something in the stream.
	FencedError = sinks.FencedError
	// TooLargeError names an event whose message is larger than the server or
	// the stream allows.
	TooLargeError = sinks.TooLargeError
	// EpochError says that the stream holds events of a newer incarnation of the
	// source.
	EpochError = sinks.EpochError
	// UnreachableError says which servers did not answer.
	UnreachableError = sinks.UnreachableError
)
