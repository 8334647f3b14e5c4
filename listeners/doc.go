// Package listeners holds what every source of events and every receiver of
// them share: the [Event], the [Batch] (one transaction), the [Position], the
// [Feed] that a source appends to, and the [Subscription] that reads it.
//
// A listener is any [Listener]; [Handlers] is the typed one that most programs
// use. Sources are a Postgres reader, an in-memory region, or anything else
// that implements [Source]; a listener does not know which one it hears.
//
// # What is promised
//
// Order: a subscription sees batches in commit order and, within a batch,
// events in the order of the statements that made them. A subscription calls
// its listener on one goroutine, one batch at a time, unless it asks for
// Workers: then a key's events are in order. Nothing is promised
// about the order in which two subscriptions hear of the same batch.
//
// Completeness: a subscription sees every batch appended after it joined, until
// it or its feed is closed. A feed that is full blocks its writer; nothing is
// dropped. A subscription may ask for another [Overflow]: then no writer waits
// for it, and what it loses when it is too slow is what that policy says:
//
//	            what the listener misses             and knows afterwards
//	block       nothing                              all
//	conflate    what lay between, borders of         the exact state; the old row
//	            transactions                         is the one it had
//	reset       the changes that were dropped        the exact state, told anew
//	disconnect  all from there on                    that it was cut off, and where
//
// Atomicity: a transaction is one batch. Only a transaction too large for
// memory comes in several, and then [Batch.First] and [Batch.Last] say so.
//
// Retry: with a [RetryPolicy] a batch that fails is handed over again after a
// delay, and what still fails can be parked, see [Subscription.Parked]. Later
// batches of its keys wait behind it, and the subscription's position stays
// before it, until somebody retries or discards it. The list is bounded and in
// memory; what does not fit ends the subscription.
//
// Groups: with a [GroupPolicy] a listener gets several whole batches at once.
//
// Isolation: unless it is retried, an error, a panic or an endless callback ends or stalls its own
// subscription. A stalled subscription makes the writer of its feed wait once
// the feed's memory is used up, until it goes on or is closed, unless its
// [Overflow] says otherwise; other subscriptions keep what they have.
//
// Read your events: after [Subscription.Wait] has returned nil, the listener has
// handled everything up to the position.
//
// Pause: [Subscription.Pause] holds a subscription, and what it loses by that is
// what it would lose by being slow.
//
// Close: [Subscription.Close] never blocks. After [Subscription.CloseWait]
// has returned nil, no callback runs.
//
// # What is not promised
//
// A listener is told a batch again after a crash, unless it stores positions
// itself: see [Durable]. Events are read-only and shared: a listener must not
// change what it receives. It may keep it; a kept record keeps alive the
// memory block (at most 256 KiB for Postgres rows) that it was read into.
package listeners
