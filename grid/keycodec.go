package grid

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"
)

// A KeyCodec makes a type one that keys are made of, see [NewKeyCodec]. It
// goes into [Options].Keys.
type KeyCodec struct {
	typ    reflect.Type
	encode func(at unsafe.Pointer) []byte // nil if the user gave no function
	decode func(raw []byte, to reflect.Value) error
}

// NewKeyCodec returns the codec of a type.
//
// AppendKey appends the encoding of a key to dst, and returns that. Encodings
// must be different for different keys, the same for the same one at any time,
// and sort by their bytes as the keys are to sort; one may begin with another.
// That is all: a terminator is added where one is needed. AppendKey is called
// for each look-up, by any number of goroutines, also while writers wait; so it
// is quick, and does nothing else.
//
// ParseKey is its reverse, and may be nil. It is called by mirrors in whose
// source the key is text, such as one of another process: for a type that does
// not implement [encoding.TextMarshaler], which is what writes and reads it
// otherwise, the text is the encoding in hexadecimal behind "\x". It must not
// keep raw.
func NewKeyCodec[K comparable](appendKey func(dst []byte, k K) []byte, parseKey func(raw []byte) (K, error)) KeyCodec {
	c := KeyCodec{typ: reflect.TypeFor[K]()}
	if appendKey != nil {
		c.encode = func(at unsafe.Pointer) []byte { return appendKey(nil, *(*K)(at)) }
	}
	if parseKey != nil {
		c.decode = func(raw []byte, to reflect.Value) error {
			k, err := parseKey(raw)
			if err == nil {
				to.Set(reflect.ValueOf(&k).Elem())
			}
			return err
		}
	}
	return c
}

// keyCodecs are those of a grid.
type keyCodecs struct {
	of    map[reflect.Type]*KeyCodec
	fault error // why no region can have a key
}

func newKeyCodecs(list []KeyCodec) keyCodecs {
	all := keyCodecs{of: make(map[reflect.Type]*KeyCodec, len(list))}
	for _, c := range list {
		switch {
		case c.typ == nil:
			all.fault = errors.New("Options.Keys has a zero KeyCodec: make it with NewKeyCodec")
		case c.encode == nil:
			all.fault = fmt.Errorf("Options.Keys has a codec of %s without a function that appends", c.typ)
		case all.of[c.typ] != nil:
			all.fault = fmt.Errorf("Options.Keys has two codecs of %s", c.typ)
		}
		all.of[c.typ] = &c
	}
	return all
}

// find returns the codec of a type, nil if the user gave none.
func (c keyCodecs) find(t reflect.Type) *KeyCodec { return c.of[t] }
