package grid

import (
	"reflect"
	"unsafe"
)

// What a batch and an event take, to the nearest round number.
const (
	batchBytes = 192
	eventBytes = 96
)

// sizes estimates how much memory entries take.
type sizes[V any] struct {
	entry int // without what follows pointers
	value func(V) int
	texts []uintptr // offsets of the strings and byte slices in V; unused with value
}

// newSizes takes the user's estimate, if there is one.
func newSizes[K comparable, V any](value func(V) int) sizes[V] {
	s := sizes[V]{entry: int(reflect.TypeFor[entry[K, V]]().Size()), value: value}
	t := reflect.TypeFor[V]()
	if isText(t) {
		s.texts = []uintptr{0}
	}
	if t.Kind() == reflect.Struct {
		for _, f := range fieldsOf(t) {
			if isText(f.typ) {
				s.texts = append(s.texts, f.offset)
			}
		}
	}
	return s
}

func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// of returns the estimate for an entry.
func (s *sizes[V]) of(id []byte, v *V) int {
	n := s.entry + len(id)
	if s.value != nil {
		return n + max(0, s.value(*v))
	}
	for _, offset := range s.texts {
		// A string begins with its pointer and its length; so does a slice.
		n += len(*(*string)(unsafe.Add(unsafe.Pointer(v), offset)))
	}
	return n
}
