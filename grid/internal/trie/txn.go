package trie

import "bytes"

// A Txn makes a new tree of an old one, which stays as it is. It belongs to one
// goroutine, and needs no end if its work is not wanted.
type Txn[E any] struct {
	tree Tree[E]
}

// Txn returns a transaction on the tree.
func (t *Tree[E]) Txn() Txn[E] {
	txn := Txn[E]{tree: *t}
	txn.tree.edit++
	return txn
}

// Tree returns the tree as it is now. What the transaction does later is not in
// it.
func (x *Txn[E]) Tree() Tree[E] {
	t := x.tree
	x.tree.edit++ // what it made so far is no longer its own
	return t
}

// Get returns the entry with this key as the transaction has left it, or nil.
func (x *Txn[E]) Get(key []byte) *E { return x.tree.Get(key) }

// Set stores an entry and returns the one with the same key that it replaces,
// nil if there was none.
func (x *Txn[E]) Set(e *E) (before *E) {
	key := x.tree.key(e)
	near := x.tree.near(key)
	if near == nil {
		x.tree.root.leaf = e
		return nil
	}
	nearKey := x.tree.key(near)
	diff := difference(key, nearKey)
	at := &x.tree.root
	for b := at.branch; b != nil && (diff == noDiff || int(b.at) < diff); b = at.branch {
		b = x.own(at)
		at = &b.twigs[b.index(slot(key, b.at))]
	}
	if diff == noDiff {
		at.leaf = e
		return near
	}
	s := slot(key, uint32(diff))
	if b := at.branch; b != nil && int(b.at) == diff {
		at.branch = x.grown(b, s, e)
		return nil
	}
	other := slot(nearKey, uint32(diff))
	b := newBranch[E](2)
	b.edit, b.at, b.bitmap = x.tree.edit, uint32(diff), 1<<s|1<<other
	b.twigs[b.index(s)].leaf = e
	b.twigs[b.index(other)] = *at
	*at = twig[E]{branch: b}
	return nil
}

// Delete removes the entry with this key and returns it, nil if there is none.
func (x *Txn[E]) Delete(key []byte) (before *E) {
	before = x.tree.near(key)
	if before == nil || !bytes.Equal(x.tree.key(before), key) {
		return nil
	}
	at := &x.tree.root
	for at.branch != nil {
		b := at.branch
		s := slot(key, b.at)
		i := b.index(s)
		if b.twigs[i].branch != nil {
			b = x.own(at)
			at = &b.twigs[i]
			continue
		}
		if len(b.twigs) == 2 {
			*at = b.twigs[1-i]
			return before
		}
		b = x.own(at)
		copy(b.twigs[i:], b.twigs[i+1:])
		b.twigs[len(b.twigs)-1] = twig[E]{}
		b.twigs = b.twigs[:len(b.twigs)-1]
		b.bitmap &^= 1 << s
		return before
	}
	*at = twig[E]{}
	return before
}

// own makes the branch at a twig one that the transaction may change.
func (x *Txn[E]) own(at *twig[E]) *branch[E] {
	b := at.branch
	if b.edit == x.tree.edit {
		return b
	}
	c := newBranch[E](len(b.twigs))
	c.edit, c.at, c.bitmap = x.tree.edit, b.at, b.bitmap
	copy(c.twigs, b.twigs)
	at.branch = c
	return c
}

// grown returns a branch of the transaction's own with one more entry, in a
// slot that is free.
func (x *Txn[E]) grown(b *branch[E], slot uint32, e *E) *branch[E] {
	n, i := len(b.twigs), b.index(slot)
	c := b
	if b.edit == x.tree.edit && n < cap(b.twigs) {
		c.twigs = b.twigs[:n+1]
		copy(c.twigs[i+1:], c.twigs[i:n])
	} else {
		c = newBranch[E](n + 1)
		c.edit, c.at, c.bitmap = x.tree.edit, b.at, b.bitmap
		copy(c.twigs, b.twigs[:i])
		copy(c.twigs[i+1:], b.twigs[i:])
	}
	c.twigs[i] = twig[E]{leaf: e}
	c.bitmap |= 1 << slot
	return c
}
