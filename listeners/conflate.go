package listeners

import "slices"

// conflate replaces what waits at and behind a place by the net change of each
// key. It reports whether that is enough. Like bound it is called with the
// feed's mu. The feed's own nodes are shared and stay as they are: the
// subscription gets a few of its own, which lead to the feed's last one.
//
// A merged batch that is not all of the transactions it is made of begins or
// ends where those do: without First after parts that were delivered before,
// without Last before parts that are still to come.
func (s *Subscription) conflate(from *node) bool {
	tail := s.feed.tail
	within := s.within
	var out []*Batch
	var run *merger
	var passed *Batch // at the end; behind others it says nothing more than they do
	end := func() {
		if run != nil {
			out = append(out, run.batch())
			run = nil
		}
	}
	for n := from; n != tail; n = n.next.Load() {
		b := n.batch
		if b.Kind == quiet {
			passed = b
			continue
		}
		if rest := within && b.Kind == Changes && !b.First; rest || b.Position.Compare(s.skip) <= 0 {
			within = rest && !b.Last
			continue
		}
		within, passed = false, nil
		if b.Kind != Changes {
			end()
			if b.Kind == Reset && b.Collections == nil {
				out = nil // the state that follows contains it
			}
			out = append(out, b)
			continue
		}
		b = s.behind(b)
		if run == nil {
			run = newMerger(b)
		}
		run.add(b, s.collections)
	}
	end()
	if passed != nil {
		out = append(out, passed)
	}

	var size int64
	for _, b := range out {
		size += int64(b.Size)
	}
	if size > s.place.max/2 {
		return false // or else every few batches would be merged again
	}
	s.within = within
	first := tail
	bytes := tail.bytes
	for i, b := range slices.Backward(out) {
		bytes -= int64(b.Size)
		n := &node{seq: tail.seq - uint64(len(out)-i), bytes: bytes, batch: b}
		n.next.Store(first)
		first = n
	}
	if len(out) > 0 {
		first.seq = from.seq
	}
	if s.place.taken {
		at := s.at.Load()
		n := &node{seq: at.seq, bytes: bytes - int64(at.batch.Size), batch: at.batch}
		n.next.Store(first)
		first = n
	}
	s.place.merged = from.seq
	s.at.Store(first)
	return true
}

// A merger makes one batch of the changes of several.
type merger struct {
	first       bool // the first batch was a First
	last        *Batch
	events      []pending
	collections map[string]*pendingCollection
	key         []byte
}

// A pending event is in a merged batch unless it is gone.
type pending struct {
	Event
	size int64 // of the rows that it holds, as estimated
	gone bool
}

type pendingCollection struct {
	keys map[string]int // where the event is that a later one of the key is merged with
	all  []int          // of the collection's events that may not be gone
}

func newMerger(first *Batch) *merger {
	return &merger{first: first.First, collections: make(map[string]*pendingCollection)}
}

func (m *merger) add(b *Batch, wanted map[string]struct{}) {
	m.last = b
	for i := range b.Events {
		e := &b.Events[i]
		if wanted != nil {
			if _, ok := wanted[e.Schema.Collection()]; !ok {
				continue
			}
		}
		m.event(e, int64(b.Size+len(b.Events)-1)/int64(len(b.Events)))
	}
}

func (m *merger) event(e *Event, size int64) {
	name := e.Schema.Collection()
	c := m.collections[name]
	if c == nil {
		c = &pendingCollection{keys: make(map[string]int)}
		m.collections[name] = c
	}
	switch e.Op {
	case Create, Update, Delete:
	case Truncate:
		for _, i := range c.all {
			m.drop(i)
		}
		clear(c.keys)
		c.all = c.all[:0]
		m.keep(c, e, size)
		return
	default:
		m.keep(c, e, size)
		if e.Op != Message {
			clear(c.keys) // a row read again, of whatever key
		}
		return
	}
	if !m.identify(e.Key()) {
		// It may be a change of any row.
		clear(c.keys)
		m.keep(c, e, size)
		return
	}
	if old, changed := e.ChangedKey(); changed {
		delete(c.keys, string(m.key))
		if m.identify(old) {
			delete(c.keys, string(m.key))
		} else {
			clear(c.keys)
		}
		m.keep(c, e, size)
		return
	}
	i, known := c.keys[string(m.key)]
	if !known {
		c.keys[string(m.key)] = m.keep(c, e, size)
		return
	}
	before := m.events[i]
	m.drop(i)
	net, some := merge(&before.Event, e)
	if !some {
		delete(c.keys, string(m.key))
		return
	}
	// The first row, and the last one.
	c.keys[string(m.key)] = m.keep(c, &net, max(before.size, size))
}

// keep adds an event at the end.
func (m *merger) keep(c *pendingCollection, e *Event, size int64) int {
	m.events = append(m.events, pending{Event: *e, size: size})
	c.all = append(c.all, len(m.events)-1)
	return len(m.events) - 1
}

func (m *merger) drop(i int) { m.events[i] = pending{gone: true} }

// identify writes a key's text into m.key. It reports false if that names no
// row for sure.
func (m *merger) identify(k Key) bool {
	for i := range k.Len() {
		if _, v := k.At(i); v.State() != Present {
			return false
		}
	}
	m.key = k.Append(m.key[:0])
	return k.Len() > 0
}

// batch returns the merged batch. It has no events if nothing is left.
func (m *merger) batch() *Batch {
	b := *m.last
	b.First, b.Size, b.Events = m.first, 0, nil
	for i := range m.events {
		if p := &m.events[i]; !p.gone {
			b.Events = append(b.Events, p.Event)
			b.Size += int(p.size)
		}
	}
	return &b
}

// merge returns the net effect of two changes of one key, the second after the
// first, and false if there is none.
func merge(first, second *Event) (Event, bool) {
	existed, exists := first.Op != Create, second.Op != Delete
	net := *second
	net.Before, net.OldKey = first.Before, Record{}
	switch {
	case !existed && !exists:
		return Event{}, false
	case !existed:
		net.Op = Create
	case exists:
		net.Op = Update
	default:
		net.Op = Delete
		if !net.Before.Exists() {
			// All that is known of the row before the first change is its key.
			net.OldKey = first.OldKey
			if !net.OldKey.Exists() {
				net.OldKey = second.OldKey
			}
			if !net.OldKey.Exists() {
				net.OldKey = onlyKey(second.Before)
			}
		}
	}
	if exists && first.Op != Delete {
		net.After = overlay(first.After, second.After)
	}
	return net, true
}
