package grid

import (
	"bytes"
	"iter"
)

// Backward yields the entries from the greatest index value down, those of the
// same one from the last key down: the reverse of [Index.From]. Who wants the
// greatest ten stops after ten; no more are read.
func (x *Index[K, V, I]) Backward() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		it, err := x.r.view.Load().txn.GetReverse(table, slotName(x.slot))
		if err != nil {
			return // as in find
		}
		for obj := it.Next(); obj != nil; obj = it.Next() {
			e := obj.(*entry[K, V]) //nolint:errcheck // the table holds nothing else
			if !yield(e.key, e.val) {
				return
			}
		}
	}
}

// RangeBackward yields the entries of [Index.Range] in reverse order. It finds
// its beginning without reading what lies above.
func (x *Index[K, V, I]) RangeBackward(from, to I) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		begin, end := encodeKey(x.codec, nil, &from), encodeKey(x.codec, nil, &to)
		it, err := x.r.view.Load().txn.ReverseLowerBound(table, slotName(x.slot), newLookup(end).args[:]...)
		if err != nil {
			return // as in find
		}
		for obj := it.Next(); obj != nil; obj = it.Next() {
			e := obj.(*entry[K, V]) //nolint:errcheck // the table holds nothing else
			if bytes.Compare(e.places[x.slot], begin) < 0 || !yield(e.key, e.val) {
				return
			}
		}
	}
}
