package listeners

import (
	"context"
	"errors"
)

// ErrNameTaken is in the error when two subscriptions use one name of a
// [PositionStore] at a time.
var ErrNameTaken = errors.New("another subscription uses this name; give each its own")

// A PositionStore keeps the positions of durable subscriptions under their
// names, see [SubscribeOptions].Positions. [FilePositions] is one; package
// sinks/jetstream has one for several machines. Package listenertest has the
// tests that a store must pass. Its methods may be called from several
// goroutines.
type PositionStore interface {
	// Open takes a name for one subscription and returns the position stored
	// under it, the zero Position if there is none. It may block until ctx
	// ends. It is called once for each subscription, on the subscription's
	// goroutine, and not tried again: an error ends the subscription.
	//
	// If the name is in use, either Open fails or the Save of whoever opened it
	// earlier does, with an error that wraps [ErrNameTaken]; a store that cannot know
	// says so in its documentation. What a process that has died had open must
	// be free.
	Open(ctx context.Context, name string) (PositionKeeper, Position, error)
}

// A PositionKeeper is one name of a store. Its methods are called by one
// goroutine at a time.
type PositionKeeper interface {
	// Save returns nil when the position is stored, so that it survives what
	// the store's documentation says. It replaces the one before, whichever is
	// larger. It may block until ctx ends. After an error the old position or
	// the new one is stored, and the subscription tries again with a later one;
	// but an error that wraps [ErrNameTaken] ends it.
	Save(ctx context.Context, p Position) error
	// Close lets go of the name. It is called once, when the subscription has
	// ended, and nothing after it. It does not block for long.
	Close() error
}
