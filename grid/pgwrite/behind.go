package pgwrite

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/listeners"
)

// Behind stores what happens in a region in a table: write-behind. It is a
// [listeners.GroupListener]: subscribe it with Group, so that many changes
// become one transaction, with Retry, so that an outage of the database is
// waited for, and with Current, so that what the region holds already is
// stored, too:
//
//	b, err := pgwrite.NewBehind[string, Seat](ctx, pool, "public.seats")
//	sub, err := region.Subscribe("seats to postgres", b, &listeners.SubscribeOptions{
//		Current: true,
//		Group:   &listeners.GroupPolicy{MaxWait: 50 * time.Millisecond},
//		Retry:   &listeners.RetryPolicy{Attempts: 100, Park: true},
//	})
//
// A group is stored in one transaction or not at all, and of several changes of
// a key only the last. Rows are put and deleted by key, so a group that is
// handed over again, when the answer to its commit was lost, changes nothing
// more. A region's own memory is what waits for the database: what was not
// stored when the process ends is lost, and [listeners.Subscription.Wait] tells
// when a write is stored.
//
// For a region that outlives the process, such as a mirror, Positions makes the
// subscription go on where it was. The position is not stored in the transaction
// of the rows. So after a crash (not after an orderly end) the changes of up to
// SaveInterval come again, and so does everything behind a batch that was
// parked. A row carries no position that a put could compare: rows that have
// changed in that time go back to a state that they had then, and forward
// again with the next groups. Until they have caught up, readers of the table
// may see that; once Wait has returned nil for a position of after the restart,
// the table is what it would have been, whatever the groups were. A row that
// somebody else has written meanwhile is overwritten.
//
// Rows that the region does not hold stay in the table, until the region
// deletes them or is cleared: a region begins empty, and is not meant to empty
// the table with that. So a subscription with [listeners.OverflowReset] may
// leave rows behind whose deletion it has missed; do not use that.
//
// Of the table only one Behind should be the writer. The order within a group
// is not kept: first come its deletes, then its puts.
type Behind[K comparable, V any] struct {
	db     DB
	target *target
	clear  string
}

// NewBehind looks a table up, such as "public.seats", and fails if K and V do
// not fit it. They stand for columns as they do for [Bind]; the key of a region
// that is not a struct is the primary key, whatever that is called.
func NewBehind[K comparable, V any](ctx context.Context, db DB, table string) (*Behind[K, V], error) {
	t, err := newTarget(ctx, db, table, reflect.TypeFor[K](), reflect.TypeFor[V]())
	if err != nil {
		return nil, fmt.Errorf("pgwrite: store behind a region in %s: %w", table, err)
	}
	return &Behind[K, V]{db: db, target: t, clear: "DELETE FROM " + t.quoted}, nil
}

// OnBatch implements [listeners.Listener].
func (b *Behind[K, V]) OnBatch(ctx context.Context, batch *listeners.Batch) error {
	return b.OnBatches(ctx, []*listeners.Batch{batch})
}

// OnBatches implements [listeners.GroupListener]. It blocks until the database
// has committed. A [*ConstraintError] says that the table refuses a value.
func (b *Behind[K, V]) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	n := net[K, V]{rows: make(map[K]*V)}
	for _, batch := range batches {
		for i := range batch.Events {
			if err := n.take(&batch.Events[i]); err != nil {
				return fmt.Errorf("pgwrite: %s %s at %s: %w", batch.Events[i].Op, batch.Events[i].Key(), batch.Events[i].Position, err)
			}
		}
	}
	if !n.cleared && len(n.rows) == 0 {
		return nil
	}
	if err := b.store(ctx, &n); err != nil {
		return fmt.Errorf("pgwrite: store %d rows in %s: %w", len(n.rows), b.target.name, err)
	}
	return nil
}

func (b *Behind[K, V]) store(ctx context.Context, n *net[K, V]) error {
	tx, err := b.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing after a commit
	var removes, puts pgx.Batch
	if n.cleared {
		removes.Queue(b.clear)
	}
	t := b.target
	for k, v := range n.rows {
		key := reflect.ValueOf(&k).Elem()
		switch {
		case v != nil:
			puts.Queue(t.put, t.arguments(t.stored, key, reflect.ValueOf(v).Elem())...)
		case !n.cleared:
			removes.Queue(t.remove, t.arguments(t.keys, key, reflect.Value{})...)
		}
	}
	for _, part := range []*pgx.Batch{&removes, &puts} {
		if part.Len() == 0 {
			continue
		}
		if err := tx.SendBatch(ctx, part).Close(); err != nil {
			return t.explain(err, nil, false)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return t.explain(err, nil, false)
	}
	return nil
}

// A net is what several changes come to: the last state of each key.
type net[K comparable, V any] struct {
	cleared bool     // before anything in rows
	rows    map[K]*V // nil: deleted
}

func (n *net[K, V]) take(e *listeners.Event) error {
	switch e.Op { //nolint:exhaustive // the others are of one row
	case listeners.Truncate:
		n.cleared = true
		clear(n.rows)
		return nil
	case listeners.Message:
		return nil
	}
	k, err := keyOf[K](e.Key())
	if err != nil {
		return err
	}
	if e.Op == listeners.Delete {
		n.rows[k] = nil
		return nil
	}
	if missing := e.After.Unchanged(); len(missing) > 0 {
		return fmt.Errorf("the columns %q are not in the event; store behind a region, which fills them in", missing)
	}
	if changed, ok := e.ChangedKey(); ok {
		old, err := keyOf[K](changed)
		if err != nil {
			return err
		}
		n.rows[old] = nil
	}
	v := new(V)
	if err := e.After.Scan(v); err != nil {
		return err
	}
	n.rows[k] = v
	return nil
}

func keyOf[K comparable](key listeners.Key) (k K, err error) {
	if !isScalar(reflect.TypeFor[K]()) {
		return k, listeners.Record(key).Scan(&k)
	}
	if key.Len() != 1 {
		return k, errors.New("the event has no key of one column")
	}
	_, v := key.At(0)
	return k, v.Scan(&k)
}
