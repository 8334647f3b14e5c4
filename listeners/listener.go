package listeners

import (
	"context"
	"time"
)

// A Listener receives batches. Its subscription calls it on one goroutine, one
// batch at a time, in order, unless it has asked for Workers; two subscriptions call their listeners
// independently. It may take as long as it needs: the feed buffers, and then
// blocks the source.
//
// Returning nil says that the batch is handled. An error or a panic ends the
// subscription, which then reports a [ListenerError], unless a [RetryPolicy] says
// otherwise. The context ends when the subscription is closed.
type Listener interface {
	OnBatch(ctx context.Context, b *Batch) error
}

// ListenerFunc is a function that is a [Listener].
type ListenerFunc func(ctx context.Context, b *Batch) error

// OnBatch calls f.
func (f ListenerFunc) OnBatch(ctx context.Context, b *Batch) error { return f(ctx, b) }

// Durable is a [Listener] for which nil means "taken" and that stores what it
// took later, as a sink does that does not wait for each acknowledgement. The
// source keeps what is not stored.
type Durable interface {
	Listener
	// Stored returns the position up to which everything taken is stored.
	// When everything is, that is at least the position of the last batch
	// taken. It never goes back and may be called from any goroutine.
	Stored() Position
	// Stalled returns a channel that receives when something taken could not
	// be stored and Flush is needed to try again. It is always the same one.
	Stalled() <-chan struct{}
	// Flush returns nil when everything taken is stored. It retries what is
	// worth retrying until ctx ends. It is called on the subscription's
	// goroutine, never during OnBatch; an error ends the subscription.
	Flush(ctx context.Context) error
}

// A Source is anything that one can subscribe to: a Postgres table, a region,
// a reader of a stream.
type Source interface {
	// Subscribe adds a listener. The name appears in errors and logs. It does
	// not block; the listener, on a goroutine of its own, may be called before
	// Subscribe has returned.
	Subscribe(name string, l Listener, opts *SubscribeOptions) (*Subscription, error)
}

// SubscribeOptions say what a subscription wants. Nil and zero mean the
// defaults.
type SubscribeOptions struct {
	// Collections limits the subscription to these, each written as
	// [Schema.Collection] returns it. Default: all of the source.
	Collections []string
	// Filter, if it is set, is asked for each event of Collections, on the
	// subscription's goroutine; what it returns false for is left out, as other
	// collections are: a transaction of which nothing is left does not arrive,
	// and one that comes in parts keeps a first and a last. It must be quick and
	// must not change the event. Its panic ends the subscription.
	//
	// It sees each event alone: an update that takes a row out of a filtered set
	// is an update whose After does not fit and whose Before does. A truncate
	// goes through it, too. With [OverflowConflate] it sees the merged events.
	Filter func(*Event) bool
	// FilterTx is as Filter, for who decides by the transaction, too: that of
	// the event's batch. What both return true for is told. With
	// [OverflowConflate] a merged batch has the transaction of its last change.
	FilterTx func(*Event, Tx) bool
	// Current asks for the present state first: a Reset, the rows as Snapshot
	// batches, Live, and then every later change once. Default: from now on,
	// which for a source that begins with a snapshot of its own includes that.
	Current bool
	// From is where to go on: the listener has handled everything up to there,
	// and wants every later change once. It is a [Batch].Position, a
	// [Position] that a write returned, or what [Subscription.Stored] said; not
	// one from the middle of a snapshot. If it lies within a transaction, the rest of that comes, without a First.
	//
	// Where the source still has the history behind From, Current is not asked
	// for. Where it is gone (also: if From is of another epoch, or ahead of the
	// source), Current tells the present state, beginning with a Reset; without
	// Current the subscription ends with a [HistoryError], unless its source
	// begins with the present state anyway. Default: as Current says.
	From Position
	// Positions makes the subscription durable: it goes on where the last one
	// of its name was, by the position stored there, which stands for From; From
	// itself counts only if nothing is stored. What the listener has handled (or
	// stored, if it is [Durable]) is stored at most once in SaveInterval, at the
	// ends of transactions and snapshots, and once more when the subscription
	// ends. So after a crash the changes of up to that time are told again, and
	// after an orderly end none, except the parts of a transaction or snapshot
	// that was not told to its end: that comes again as a whole. So before the
	// present state is told again, after an overflow or because history is gone, the
	// position is taken back in the store, and the listener hears nothing until
	// that has worked.
	//
	// A name that is new, without Current, stores at once where it begins, so that
	// nothing is missed even if it leaves before anything came; but not in a
	// source that begins with the present state, until it has told that.
	//
	// A source that keeps what is not handled (Postgres) goes by what is stored.
	// A name is that of one subscription and one source. What happens if two use it at a
	// time is the store's matter, see [PositionStore].
	Positions PositionStore
	// SaveInterval is the least time between two stores of a position. Default
	// [DefaultSaveInterval].
	SaveInterval time.Duration
	// Ephemeral lets the source forget a batch that this listener has not
	// handled when the process ends. Default: a source that can (Postgres)
	// sends it again after a restart.
	Ephemeral bool
	// Overflow says what happens when the listener is too slow. Default:
	// writers wait for it.
	Overflow Overflow
	// BacklogBytes is how much may wait for the listener before Overflow does
	// something, in bytes of [Batch.Size], besides the batch that it is
	// handling. One more batch may come on top. It should be a multiple of the
	// usual batch. It means nothing with [OverflowBlock], where the feed has the
	// limit. Default [DefaultBacklogBytes].
	BacklogBytes int64
	// Retry says what happens when the listener fails. Default: the subscription
	// ends.
	Retry *RetryPolicy
	// Group hands several batches over at once, to a [GroupListener]. Default: one
	// at a time.
	Group *GroupPolicy
	// Workers is how many goroutines call the listener at the same time. Each gets
	// the events of some keys, and all of those: a key's events are in order,
	// those of different keys may not be. What a worker gets is its part of a
	// transaction, as a batch with the Position and Tx of that, and with First and
	// Last as if it were all. What may concern several keys is handed over whole,
	// as if there were no workers, when everything before it is handled, and before
	// anything after it begins: a Reset, a Live, and a batch that holds a truncate,
	// a message, an update of a key, or a row without a whole key.
	//
	// The position of the subscription is that up to which everything is handled.
	// The first worker to fail ends the subscription; the context of the others
	// ends. A worker parks its part of a transaction, and only its own keys wait
	// behind that. A Durable listener cannot have several. Default: one.
	Workers int
	// InFlightBytes is how much may be taken off the feed, with Workers or Group,
	// and not be handled, in bytes of [Batch.Size], besides one more batch. That is
	// part of the [Lag] and beyond what the feed and BacklogBytes limit; Overflow
	// does not reach it any more. Default [DefaultBacklogBytes].
	InFlightBytes int64
}

func (o *SubscribeOptions) withDefaults() SubscribeOptions {
	if o == nil {
		return SubscribeOptions{}
	}
	return *o
}
