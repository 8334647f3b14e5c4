package grid

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/rowcall/rowcall/listeners"
)

// QueryOptions set up a query. Nil and zero mean the defaults.
type QueryOptions struct {
	// FeedBytes bounds what the slowest listener of the query has not handled
	// yet, as [RegionOptions].FeedBytes does for those of the region. Then the
	// writers of the region wait; the other queries hear on. Default
	// [listeners.DefaultFeedBytes].
	FeedBytes int64
}

// A Query is a set of a region's entries, those with an index value or those
// that a function accepts, and a [listeners.Source] of its changes:
//
//	the entry      was in the set    was not
//	is in it now   update            create: it enters
//	is not         delete: it leaves nothing
//
// So a listener hears of the set as it would of a region that holds nothing
// else, with the region's positions, causes and transactions: one batch for
// each that changes the set. What a key does not show, Before and After do: an
// entry that enters with a Before was in the region already, and one that
// leaves with an After still is. An entry whose key changes (in a mirror) leaves
// without. Clear, and a truncate of a mirror's source, are one Truncate without
// values, also for a set that was empty.
//
// A query needs no closing. It costs a few bytes until it has a listener, and
// no more again when that has ended: that may be at any time, also from inside a
// listener. All queries of a region share one goroutine, which looks for those
// that a change concerns: by an index value, this is one look-up for the old
// value and one for the new, however many queries there are; functions are
// called one after another, once for the old entry and once for the new. All methods
// may be called from any goroutine.
type Query[K comparable, V any] struct {
	r     *Region[K, V]
	name  string
	bytes int64 // of the feed; 0 for the default
	all   iter.Seq2[K, V]
	where func(K, V) bool // nil for one by index value
	slot  int             // of the index
	value string          // encoded; in the map of those that have listeners, it is the key

	// Under the mu of the region's queries.
	feed    *listeners.Feed // nil unless it has listeners, or had until just now
	at      int             // its place in the list that it is in
	listed  bool            // in such a list: it has a feed and no failure
	failure error           // why it is of no use any more
	events  []listeners.Event
	size    int // of events
}

var _ listeners.Source = (*Query[string, int])(nil)

// NewQuery returns the query for the entries that a function accepts. Where must
// depend on nothing but its arguments, should be quick, since it is called for
// each change in the region, and must not write, nor subscribe or close
// anything. If it panics, the query has failed: its subscriptions end with a
// [listeners.ListenerError], and it takes no new ones; the other queries go on.
//
// The name appears in errors; any number of queries may share one. NewQuery
// starts nothing. Its errors are misuse.
func NewQuery[K comparable, V any](r *Region[K, V], name string, where func(K, V) bool, opts *QueryOptions) (*Query[K, V], error) {
	if where == nil {
		return nil, fmt.Errorf("grid: query %q of region %q: the function is nil", name, r.name)
	}
	all := func(yield func(K, V) bool) {
		for k, v := range r.All() {
			if where(k, v) && !yield(k, v) {
				return
			}
		}
	}
	return newQuery(&Query[K, V]{r: r, name: name, where: where, all: all}, opts)
}

// Query returns the query for the entries with an index value, those of
// [Index.Equal]. A change that neither takes its entry out of that value nor
// into it nor happens within costs it nothing, so a region may have thousands
// of these. The name is as for [NewQuery]; Query starts nothing, and its errors
// are misuse.
func (x *Index[K, V, I]) Query(name string, i I, opts *QueryOptions) (*Query[K, V], error) {
	value := string(encodeKey(x.codec, nil, &i))
	return newQuery(&Query[K, V]{r: x.r, name: name, slot: x.slot, value: value, all: x.Equal(i)}, opts)
}

func newQuery[K comparable, V any](q *Query[K, V], opts *QueryOptions) (*Query[K, V], error) {
	if q.name == "" {
		return nil, fmt.Errorf("grid: region %q: %w", q.r.name, errors.New("a query needs a name"))
	}
	if opts != nil {
		q.bytes = opts.FeedBytes
	}
	return q, nil
}

// Name returns the name given to [NewQuery] or [Index.Query].
func (q *Query[K, V]) Name() string { return q.name }

// All yields the keys and values of the set as it is at the start of the
// iteration, in key order. By an index value it reads no other entries, with a
// function all of the region. As with an index, entries whose time is up are left
// out, and reading is no use of an entry, see [RegionOptions].
func (q *Query[K, V]) All() iter.Seq2[K, V] { return q.all }

// Len counts the set, as [Query.All] reads it.
func (q *Query[K, V]) Len() int {
	n := 0
	for range q.all {
		n++
	}
	return n
}

// Get returns the value of a key, if it is in the set. It reads as [Query.All]
// does.
func (q *Query[K, V]) Get(k K) (V, bool) {
	v, ok := q.r.Peek(k)
	if ok {
		if q.where != nil {
			ok = q.where(k, v)
		} else {
			ok = string(q.r.indexDefs()[q.slot].value(k, v)) == q.value
		}
	}
	if !ok {
		var zero V
		return zero, false
	}
	return v, true
}

// entries yields the set within a view, in key order.
func (q *Query[K, V]) entries(v *view[K, V]) iter.Seq[*entry[K, V]] {
	return func(yield func(*entry[K, V]) bool) {
		if q.where == nil {
			value := []byte(q.value)
			v.seek(q.slot, value, func(e *entry[K, V]) bool {
				return bytes.HasPrefix(e.places[q.slot], value) && yield(e)
			})
			return
		}
		v.all(func(e *entry[K, V]) bool { return !q.where(e.key, e.val) || yield(e) })
	}
}
