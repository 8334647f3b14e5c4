package grid

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A staged is what one transaction is going to do to one region: for each key
// the last that it wrote. It belongs to one goroutine.
type staged[K comparable, V any] struct {
	r      *Region[K, V]
	writes map[string]stagedWrite[K, V] // by id
	count  int                          // of writes, overwritten ones too
	tag    string

	// What prepareLocked made ready for commitLocked.
	txn    *dbTxn[K, V]
	net    []netChange[K, V]
	batch  *listeners.Batch
	length int
}

type stagedWrite[K comparable, V any] struct {
	next  *entry[K, V] // nil for a delete
	id    []byte
	order int // among the writes
}

func (s *staged[K, V]) put(k K, v V) { s.putFor(k, v, 0) }

// putFor is put of an entry with a duration of its own, 0 for none.
func (s *staged[K, V]) putFor(k K, v V, ttl time.Duration) {
	id := encodeKey(s.r.codec, nil, &k)
	e := s.r.newEntry(s.r.shape, id, k, v)
	s.r.limit(e, ttl)
	s.write(id, e)
}

func (s *staged[K, V]) write(id []byte, next *entry[K, V]) {
	if s.writes == nil {
		s.writes = make(map[string]stagedWrite[K, V])
	}
	s.count++
	s.writes[string(id)] = stagedWrite[K, V]{next: next, id: id, order: s.count}
}

// sorted returns the writes in key order, in which the tree copies least.
func (s *staged[K, V]) sorted() []stagedWrite[K, V] {
	return slices.SortedFunc(maps.Values(s.writes), func(a, b stagedWrite[K, V]) int { return bytes.Compare(a.id, b.id) })
}

// A netChange is what a transaction does to a key all in all.
type netChange[K comparable, V any] struct {
	before, after *entry[K, V]
	order         int
}

// prepareLocked does everything that can fail. Nobody sees anything of it. The
// caller holds the region's mu until commitLocked or abortLocked.
func (s *staged[K, V]) prepareLocked(at time.Time) error {
	if s.r.closed {
		return ErrClosed
	}
	s.r.buryLocked(at, s.touched())
	now := s.r.view.Load()
	s.length = now.length
	probe := s.r.lookups.get()
	defer s.r.lookups.put(probe)
	var net []netChange[K, V]
	for _, w := range s.sorted() {
		probe.id = append(probe.id[:0], w.id...)
		if before := now.find(probe); before != nil || w.next != nil {
			net = append(net, netChange[K, V]{before, w.next, w.order})
		}
	}
	if len(net) == 0 {
		return nil
	}
	if err := s.admitLocked(now, net); err != nil {
		return err
	}
	s.txn = s.r.db.begin()
	s.apply(net)
	// The positions are those of the events, so entries get theirs only here.
	slices.SortFunc(net, func(a, b netChange[K, V]) int { return cmp.Compare(a.order, b.order) })
	pos := following(now.position)
	events, size := make([]listeners.Event, len(net)), batchBytes
	for i, c := range net {
		pos.Index = uint32(i)
		if c.after != nil {
			c.after.pos = pos
		}
		size += s.r.describe(&events[i], c.before, c.after, pos)
	}
	s.net = net
	s.batch = &listeners.Batch{
		Kind: listeners.Changes, Source: s.r.grid.name, Tx: listeners.Tx{ID: pos.Commit, Time: at, Tag: s.tag},
		Events: events, Position: pos, First: true, Last: true, Size: size,
	}
	return nil
}

// touched yields what the writes come upon, as [Region.touchedBy] does.
func (s *staged[K, V]) touched() iter.Seq[*entry[K, V]] {
	return func(yield func(*entry[K, V]) bool) {
		now, defs := s.r.view.Load(), s.r.indexDefs()
		for _, w := range s.writes {
			if !yield(now.find(newLookup(w.id))) {
				return
			}
			if w.next == nil {
				continue
			}
			w.next.index(defs)
			if !s.r.rivals(now, w.next, yield) {
				return
			}
		}
	}
}

// admitLocked reports whether two keys would have one value in a unique index.
// It counts who has a value after the transaction, so two keys may swap theirs.
func (s *staged[K, V]) admitLocked(now *view[K, V], net []netChange[K, V]) error {
	defs := s.r.indexDefs()
	for _, c := range net {
		if c.after != nil {
			c.after.index(defs) // for one that was added meanwhile
		}
	}
	for slot, d := range defs {
		if !d.unique {
			continue
		}
		holders := make(map[string]K)
		for _, c := range net {
			if c.after == nil || c.after.places[slot] == nil {
				continue
			}
			value := c.after.indexValue(slot)
			holder, taken := holders[string(value)]
			if !taken {
				e := now.holder(slot, value)
				if e != nil {
					_, rewritten := s.writes[string(e.id)]
					holder, taken = e.key, !rewritten
				}
			}
			if taken {
				return &UniqueError{Index: d.name, Key: c.after.key, Holder: holder}
			}
			holders[string(value)] = c.after.key
		}
	}
	return nil
}

func (s *staged[K, V]) apply(net []netChange[K, V]) {
	for _, c := range net {
		switch {
		case c.after == nil:
			s.txn.remove(c.before)
			s.length--
		case c.before == nil:
			s.length++
			fallthrough
		default:
			s.txn.put(c.after)
		}
	}
}

// commitLocked makes what was prepared visible, tells the feed, and returns the
// position, zero if the transaction changes nothing here.
func (s *staged[K, V]) commitLocked() listeners.Position {
	for _, w := range s.writes {
		s.r.overtakeLocked(w.id)
	}
	if s.txn == nil {
		return listeners.Position{}
	}
	at := s.batch.Tx.Time
	for _, c := range s.net {
		s.r.settleLocked(c.before, c.after, s.r.clockAt(at))
	}
	now, evicted := s.batch.Position, s.r.evictLocked(s.txn, s.length, s.batch.Position, at)
	if evicted != nil {
		s.length, now = s.length-len(evicted.Events), evicted.Position
	}
	s.txn.commit()
	s.r.show(s.length, now)
	s.r.feed.Append(s.batch)
	if evicted != nil {
		s.r.feed.Append(evicted)
	}
	s.r.scheduleLocked()
	return s.batch.Position
}

// abortLocked takes back what was prepared.
func (s *staged[K, V]) abortLocked() {
	s.txn, s.batch = nil, nil
}
