package grid

import (
	"context"
	"slices"
	"sync/atomic"
)

// A loadMark lies on a key that is absent, while somebody loads it or remembers
// that it was not found. The next write of the key takes it away.
type loadMark struct{ overtaken atomic.Bool }

// addMark puts a mark on a key, unless the key is there.
func (r *Region[K, V]) addMark(id string, m *loadMark) (there bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false, ErrClosed
	}
	if e := r.view.Load().get([]byte(id)); e != nil && !r.over(e, r.clock()) {
		return true, nil
	}
	if r.marks == nil {
		r.marks = make(map[string][]*loadMark)
	}
	r.marks[id] = append(r.marks[id], m)
	return false, nil
}

func (r *Region[K, V]) dropMark(id string, m *loadMark) {
	if m.overtaken.Load() {
		return // by who took it away
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(r.marks[id], func(o *loadMark) bool { return o == m })
	if len(left) == 0 {
		delete(r.marks, id)
		return
	}
	r.marks[id] = left
}

// overtakeLocked takes the marks of a key away that is written.
func (r *Region[K, V]) overtakeLocked(id []byte) {
	if len(r.marks) == 0 {
		return
	}
	for _, m := range r.marks[string(id)] {
		m.overtaken.Store(true)
	}
	delete(r.marks, string(id))
}

func (r *Region[K, V]) overtakeAllLocked() {
	for _, marks := range r.marks {
		for _, m := range marks {
			m.overtaken.Store(true)
		}
	}
	clear(r.marks)
}

// A trail is what the load functions around a context are loading.
type trail struct {
	mark  *loadMark
	outer *trail
}

type trailKey struct{}

func trailOf(ctx context.Context) *trail {
	t, _ := ctx.Value(trailKey{}).(*trail)
	return t
}

func (t *trail) with(ctx context.Context, m *loadMark) context.Context {
	return context.WithValue(ctx, trailKey{}, &trail{m, t})
}

func (t *trail) has(m *loadMark) bool {
	for ; t != nil; t = t.outer {
		if t.mark == m {
			return true
		}
	}
	return false
}
