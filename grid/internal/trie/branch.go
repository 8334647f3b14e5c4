package trie

import (
	"encoding/binary"
	"math/bits"
)

// A twig is an entry, a branch, or, with neither, nothing.
type twig[E any] struct {
	branch *branch[E]
	leaf   *E
}

// A branch leads to at least two twigs, which differ at one place of their keys
// and not before. It may be changed only by the transaction that made it.
type branch[E any] struct {
	twigs  []twig[E] // in the order of their slots; in one piece of memory with the branch
	edit   uint64    // of the transaction that made it
	at     uint32    // the place, in half bytes
	bitmap uint32    // the slots that have twigs
}

const (
	slots  = 17 // a key has ended, or one of 16 values
	noDiff = -1
)

// slot returns which way a key goes at a place: 0 if it has ended.
func slot(key []byte, at uint32) uint32 {
	i := int(at >> 1)
	if i >= len(key) {
		return 0
	}
	return 1 + uint32(key[i]>>(4&^(at<<2)))&15
}

// index returns where the twig of a slot is or would be.
func (b *branch[E]) index(slot uint32) int { return bits.OnesCount32(b.bitmap & (1<<slot - 1)) }

func (b *branch[E]) has(slot uint32) bool { return b.bitmap>>slot&1 != 0 }

// difference returns the first place at which two keys differ, or noDiff.
func difference(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			i += bits.TrailingZeros64(x) >> 3
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	switch {
	case i < n && (a[i]^b[i])>>4 == 0:
		return 2*i + 1
	case i < n || len(a) != len(b):
		return 2 * i
	}
	return noDiff
}

// The sizes of branches are such that little of what Go rounds up to is lost.
type (
	branch2[E any] struct {
		branch[E]
		room [2]twig[E]
	}
	branch4[E any] struct {
		branch[E]
		room [4]twig[E]
	}
	branch6[E any] struct {
		branch[E]
		room [6]twig[E]
	}
	branch8[E any] struct {
		branch[E]
		room [8]twig[E]
	}
	branch10[E any] struct {
		branch[E]
		room [10]twig[E]
	}
	branch13[E any] struct {
		branch[E]
		room [13]twig[E]
	}
	branch17[E any] struct {
		branch[E]
		room [slots]twig[E]
	}
)

// newBranch returns a branch with n empty twigs, in one piece of memory.
func newBranch[E any](n int) *branch[E] {
	switch {
	case n <= 2:
		b := new(branch2[E])
		b.twigs = b.room[:n]
		return &b.branch
	case n <= 4:
		b := new(branch4[E])
		b.twigs = b.room[:n]
		return &b.branch
	case n <= 6:
		b := new(branch6[E])
		b.twigs = b.room[:n]
		return &b.branch
	case n <= 8:
		b := new(branch8[E])
		b.twigs = b.room[:n]
		return &b.branch
	case n <= 10:
		b := new(branch10[E])
		b.twigs = b.room[:n]
		return &b.branch
	case n <= 13:
		b := new(branch13[E])
		b.twigs = b.room[:n]
		return &b.branch
	default:
		b := new(branch17[E])
		b.twigs = b.room[:n]
		return &b.branch
	}
}
