package trie

import "bytes"

// A Tree is a set of entries with different keys. It never changes, so any
// number of goroutines may read it at once. The zero Tree has no key function
// and is not to be used; see [New].
type Tree[E any] struct {
	root twig[E]
	edit uint64 // of the last transaction
	key  func(*E) []byte
}

// New returns an empty tree. The function returns an entry's key, always the
// same one; nobody changes it, nor do the trees.
func New[E any](key func(*E) []byte) Tree[E] { return Tree[E]{key: key} }

// Get returns the entry with this key, or nil.
func (t *Tree[E]) Get(key []byte) *E {
	here := t.root
	for here.branch != nil {
		b := here.branch
		s := slot(key, b.at)
		if !b.has(s) {
			return nil
		}
		here = b.twigs[b.index(s)]
	}
	if here.leaf == nil || !bytes.Equal(t.key(here.leaf), key) {
		return nil
	}
	return here.leaf
}

// near returns an entry of which no other has a longer beginning in common with
// the key, nil in an empty tree.
func (t *Tree[E]) near(key []byte) *E {
	here := t.root
	for here.branch != nil {
		b := here.branch
		i := 0
		if s := slot(key, b.at); b.has(s) {
			i = b.index(s)
		}
		here = b.twigs[i]
	}
	return here.leaf
}

// All yields all entries in the order of their keys, until yield returns false.
func (t *Tree[E]) All(yield func(*E) bool) { t.root.all(yield) }

func (t twig[E]) all(yield func(*E) bool) bool {
	if t.branch == nil {
		return t.leaf == nil || yield(t.leaf)
	}
	return all(t.branch.twigs, yield)
}

func all[E any](twigs []twig[E], yield func(*E) bool) bool {
	for i := range twigs {
		if t := &twigs[i]; t.branch == nil {
			if !yield(t.leaf) {
				return false
			}
		} else if !all(t.branch.twigs, yield) {
			return false
		}
	}
	return true
}

// From yields the entries with this key and greater ones, in the order of
// their keys, until yield returns false.
func (t *Tree[E]) From(key []byte, yield func(*E) bool) {
	near := t.near(key)
	if near == nil {
		return
	}
	nearKey := t.key(near)
	f := from[E]{key: key, diff: difference(key, nearKey), greater: bytes.Compare(nearKey, key) >= 0}
	f.walk(t.root, yield)
}

// A from is what a walk from a key on knows: where the key leaves the tree, and
// whether what is behind that place is greater.
type from[E any] struct {
	key     []byte
	diff    int
	greater bool
}

func (f *from[E]) walk(t twig[E], yield func(*E) bool) bool {
	b := t.branch
	if b == nil || f.diff != noDiff && int(b.at) > f.diff {
		return !f.greater || t.all(yield)
	}
	s := slot(f.key, b.at)
	i := b.index(s)
	if b.has(s) {
		if !f.walk(b.twigs[i], yield) {
			return false
		}
		i++
	}
	return all(b.twigs[i:], yield)
}
