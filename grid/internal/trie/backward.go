package trie

import (
	"bytes"
	"slices"
)

// Backward yields all entries in the reverse order of their keys, until yield
// returns false.
func (t *Tree[E]) Backward(yield func(*E) bool) { t.root.backward(yield) }

func (t twig[E]) backward(yield func(*E) bool) bool {
	if t.branch == nil {
		return t.leaf == nil || yield(t.leaf)
	}
	return backward(t.branch.twigs, yield)
}

func backward[E any](twigs []twig[E], yield func(*E) bool) bool {
	for _, t := range slices.Backward(twigs) {
		if !t.backward(yield) {
			return false
		}
	}
	return true
}

// Below yields the entries with smaller keys than this one, in the reverse
// order of their keys, until yield returns false.
func (t *Tree[E]) Below(key []byte, yield func(*E) bool) {
	near := t.near(key)
	if near == nil {
		return
	}
	nearKey := t.key(near)
	f := from[E]{key: key, diff: difference(key, nearKey), greater: bytes.Compare(nearKey, key) >= 0}
	f.walkBelow(t.root, yield)
}

func (f *from[E]) walkBelow(t twig[E], yield func(*E) bool) bool {
	b := t.branch
	if b == nil || f.diff != noDiff && int(b.at) > f.diff {
		return f.greater || t.backward(yield)
	}
	s := slot(f.key, b.at)
	i := b.index(s)
	if b.has(s) && !f.walkBelow(b.twigs[i], yield) {
		return false
	}
	return backward(b.twigs[:i], yield)
}
