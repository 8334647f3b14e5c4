package listeners

import (
	"context"
	"reflect"
	"time"
)

// A Change is the typed view of one [Event]: the records as Go values. T is
// the value type of a region, or a struct whose tags name columns as
// [Record.Scan] describes. A T that is no struct takes the column "value", or
// the only one outside the key.
type Change[T any] struct {
	Op    Op
	Cause Cause
	// Key is the text of [Key.String].
	Key      string
	Position Position
	Tx       Tx
	// Before is the old value. Unless HasBefore is true it holds only the key
	// columns (on delete, and on an update of the key) or nothing.
	Before    T
	HasBefore bool
	// After is the new value; the zero T on delete. What an update left
	// unchanged may share memory with Before.
	After T
	// Missing names the columns of After that Postgres did not send because an
	// update left a TOASTed value as it was; their fields are zero. With
	// Before known (REPLICA IDENTITY FULL, or a region that mirrors the table)
	// it is always empty.
	Missing []string
	// Event is the event itself, for columns that T has no field for.
	Event *Event
}

// Handlers is a [Listener] of typed changes: one function for each thing that
// can happen; nil ignores it. An error ends the subscription as
// [Listener] describes, and the rest of the batch is not delivered.
type Handlers[T any] struct {
	// OnRead is called for each row of the current state, see
	// [SubscribeOptions].Current.
	OnRead   func(context.Context, Change[T]) error
	OnCreate func(context.Context, Change[T]) error
	OnUpdate func(context.Context, Change[T]) error
	OnDelete func(context.Context, Change[T]) error
	// OnTruncate is called with the collection that was emptied.
	OnTruncate func(ctx context.Context, collection string) error
	// OnMessage is called for each message of the application.
	OnMessage func(context.Context, Change[T]) error
	// OnReset says that the current state is about to be read (again).
	OnReset func(context.Context) error
	// OnLive says that the current state is complete.
	OnLive func(context.Context) error
	// OnCommit is called after the last event of each transaction.
	OnCommit func(ctx context.Context, tx Tx, at Position) error
}

// OnBatch implements [Listener].
func (h Handlers[T]) OnBatch(ctx context.Context, b *Batch) error {
	switch b.Kind {
	case Reset:
		return h.marker(ctx, h.OnReset)
	case Live:
		return h.marker(ctx, h.OnLive)
	case Changes, Snapshot:
	}
	for i := range b.Events {
		if err := h.event(ctx, b, &b.Events[i]); err != nil {
			return err
		}
	}
	if b.Kind == Changes && b.Last && h.OnCommit != nil {
		return h.OnCommit(ctx, b.Tx, b.Position)
	}
	return nil
}

func (h Handlers[T]) marker(ctx context.Context, f func(context.Context) error) error {
	if f == nil {
		return nil
	}
	return f(ctx)
}

func (h Handlers[T]) event(ctx context.Context, b *Batch, e *Event) error {
	var f func(context.Context, Change[T]) error
	switch e.Op {
	case Create:
		f = h.OnCreate
	case Update:
		f = h.OnUpdate
	case Delete:
		f = h.OnDelete
	case Read:
		f = h.OnRead
	case Message:
		f = h.OnMessage
	case Truncate:
		if h.OnTruncate != nil {
			return h.OnTruncate(ctx, e.Schema.Collection())
		}
	}
	if f == nil {
		return nil
	}
	c, err := NewChange[T](e)
	if err != nil {
		return err
	}
	c.Tx = b.Tx
	return f(ctx, c)
}

// NewChange decodes an event. Its error is that of [Record.Scan]. Tx stays
// zero, since only the batch knows it.
func NewChange[T any](e *Event) (Change[T], error) {
	c := Change[T]{Op: e.Op, Cause: e.Cause, Key: e.Key().String(), Position: e.Position, Event: e}
	before := e.Before
	if c.HasBefore = before.Exists(); !c.HasBefore {
		before = e.OldKey
	}
	if before.Exists() {
		if err := decode(before, &c.Before); err != nil {
			return c, err
		}
	}
	if !e.After.Exists() {
		return c, nil
	}
	if c.HasBefore && e.Op == Update {
		c.After = c.Before // so that unchanged columns are filled in
	}
	if err := decode(e.After, &c.After); err != nil {
		return c, err
	}
	if !c.HasBefore && e.Op == Update {
		c.Missing = e.After.missing(reflect.TypeFor[T]())
	}
	return c, nil
}

// decode stores a record into dst: the Go value itself where the row holds one
// of this type, its columns otherwise.
func decode[T any](r Record, dst *T) error {
	if n, ok := r.row.(Native); ok {
		if v, ok := n.Native().(*T); ok {
			*dst = *v
			return nil
		}
	}
	if i, ok := r.row.Schema().scalar(reflect.TypeFor[T]()); ok {
		return r.At(i).Scan(dst)
	}
	return r.Scan(dst)
}

// Age returns the time since the transaction committed.
func (c *Change[T]) Age() time.Duration { return time.Since(c.Tx.Time) }
