package sinks

import "context"

// An Inbox makes receiving idempotent: it remembers the commands that were
// carried out, for as long as it is told to, with their replies.
//
// How much that is worth depends on where it remembers. One that commits its
// memory together with the handler's effect (package pginbox: a table, in the handler's
// transaction) gives each effect exactly once. One that remembers elsewhere (a
// JetStream bucket) leaves a moment between the effect and the memory of it, in which
// a worker may die.
type Inbox interface {
	// Once calls do unless this command of this queue was carried out before,
	// and remembers it if do returned nil. Repeated says that it was carried out before;
	// reply is what do returned then.
	//
	// While the same command runs elsewhere, Once waits for the outcome. The
	// context that do gets is derived from ctx and may carry the transaction.
	// It may be called concurrently and retries nothing. An error means that
	// the command is not remembered; if do had returned nil, its effect is undone as
	// far as the store can. An error that wraps [ErrUnclear] says that nobody can
	// know. An error of do is returned, or wrapped: callers look for their own.
	Once(ctx context.Context, queue, id string, do func(ctx context.Context) (reply []byte, err error)) (reply []byte, repeated bool, err error)
}
