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
		x.r.view.Load().state.indexes[x.slot].Backward(x.r.staying(yield))
	}
}

// RangeBackward yields the entries of [Index.Range] in reverse order. It finds
// its beginning without reading what lies above.
func (x *Index[K, V, I]) RangeBackward(from, to I) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		begin, end := encodeKey(x.codec, nil, &from), encodeKey(x.codec, nil, &to)
		tell := x.r.staying(yield)
		x.r.view.Load().state.indexes[x.slot].Below(end, func(e *entry[K, V]) bool {
			return bytes.Compare(e.places[x.slot], begin) >= 0 && tell(e)
		})
	}
}
