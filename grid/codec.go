package grid

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unsafe"
)

// A codec turns keys of one type into bytes that sort as the keys do. No
// encoding is a prefix of another: numbers, times and byte arrays have a fixed
// width, strings and what a user's codec appends a terminator that cannot occur
// in them.
type codec struct {
	typ   reflect.Type
	parts []keyPart // one, or one for each field of a struct
	steps []keyStep
	times []uintptr // offsets of the times
}

// A keyPart is a column of a key.
type keyPart struct {
	field
	codec *KeyCodec // the user's; nil if it has none
	steps []keyStep // of this part alone
	// whole says that the text of a built-in kind is none of its; mute, that its
	// JSON does not tell it from others.
	whole, mute bool
}

// A keyStep is one piece of an encoding.
type keyStep struct {
	kind   reflect.Kind // Struct stands for a time, Func for a user's codec
	offset uintptr      // within the key
	size   uintptr      // of an array of bytes
	codec  *KeyCodec
}

const (
	keyTypes = "strings, integers, bools, times, arrays and structs of these, and types that Options.Keys has a codec for"
	// maxSteps bounds what arrays of arrays may come to.
	maxSteps = 1024
)

// newCodec returns the codec of a key type, or an error that says why it has
// none.
func newCodec(t reflect.Type, own keyCodecs) (*codec, error) {
	c := &codec{typ: t}
	switch {
	case own.fault != nil:
		return nil, own.fault
	case t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() || own.find(t) != nil:
		return c, c.add(own, field{typ: t})
	}
	columns := make(map[string]string)
	for _, f := range fieldsOf(t) {
		if f.column == "" {
			return nil, fmt.Errorf("%s cannot be a key: its field %s is not exported or has the tag db:\"-\"; every field of a key takes part", t, f.name)
		}
		if other, twice := columns[f.column]; twice {
			return nil, fmt.Errorf("%s cannot be a key: its fields %s and %s both stand for column %q; rename one with a db tag", t, other, f.name, f.column)
		}
		columns[f.column] = f.name
		if err := c.add(own, f); err != nil {
			return nil, err
		}
	}
	if len(c.parts) == 0 {
		return nil, fmt.Errorf("%s cannot be a key: it has no fields", t)
	}
	return c, nil
}

// add adds a column.
func (c *codec) add(own keyCodecs, f field) error {
	p := keyPart{field: f, codec: own.find(f.typ)}
	w := stepWalk{own: own}
	if err := w.walk(f.typ, f.offset); err != nil {
		if f.name != "" {
			return fmt.Errorf("%s cannot be a key: its field %s: %w", c.typ, f.name, err)
		}
		return fmt.Errorf("%s cannot be a key: %w", c.typ, err)
	}
	p.steps, p.mute = w.steps, w.mute
	p.whole = f.typ.Kind() == reflect.Struct || f.typ.Kind() == reflect.Array && !isByteArray(f.typ) || p.mute
	c.parts = append(c.parts, p)
	if c.steps = append(c.steps, w.steps...); len(c.steps) > maxSteps {
		return fmt.Errorf("%s cannot be a key: it has more than %d parts; give it a codec of its own in Options.Keys", c.typ, maxSteps)
	}
	for _, s := range w.steps {
		if s.kind == reflect.Struct {
			c.times = append(c.times, s.offset)
		}
	}
	return nil
}

// scalar reports whether the key is one column rather than a struct of them.
func (c *codec) scalar() bool { return len(c.parts) == 1 && c.parts[0].index == nil }

// settle makes two keys that are one the same: times are compared by their
// instant.
func settle[K comparable](c *codec, k *K) {
	for _, offset := range c.times {
		at := (*time.Time)(unsafe.Add(unsafe.Pointer(k), offset))
		*at = at.UTC().Round(0)
	}
}

// columns lists the key's columns for messages.
func (c *codec) columns() string {
	names := make([]string, len(c.parts))
	for i, p := range c.parts {
		names[i] = p.column
	}
	return strings.Join(names, ", ")
}

// encodeKey appends the encoding of k, whose type the codec was made for.
func encodeKey[K comparable](c *codec, dst []byte, k *K) []byte { return appendSteps(c.steps, dst, k) }

func appendSteps[K comparable](steps []keyStep, dst []byte, k *K) []byte {
	// A key is read through its address and the offsets of its fields, since
	// reflection would cost more than the look-up. newCodec took kinds and
	// offsets from this very type, so each pointer has its field's type up to
	// its name.
	base := unsafe.Pointer(k)
	for i := range steps {
		p := &steps[i]
		at := unsafe.Add(base, p.offset)
		switch p.kind { //nolint:exhaustive // stepWalk lists them
		case reflect.String:
			dst = appendTerminated(dst, *(*string)(at))
		case reflect.Int:
			dst = binary.BigEndian.AppendUint64(dst, uint64(*(*int)(at))^1<<63)
		case reflect.Int64:
			dst = binary.BigEndian.AppendUint64(dst, *(*uint64)(at)^1<<63)
		case reflect.Int32:
			dst = binary.BigEndian.AppendUint32(dst, *(*uint32)(at)^1<<31)
		case reflect.Int16:
			dst = binary.BigEndian.AppendUint16(dst, *(*uint16)(at)^1<<15)
		case reflect.Int8:
			dst = append(dst, *(*uint8)(at)^1<<7)
		case reflect.Uint:
			dst = binary.BigEndian.AppendUint64(dst, uint64(*(*uint)(at)))
		case reflect.Uint64:
			dst = binary.BigEndian.AppendUint64(dst, *(*uint64)(at))
		case reflect.Uint32:
			dst = binary.BigEndian.AppendUint32(dst, *(*uint32)(at))
		case reflect.Uint16:
			dst = binary.BigEndian.AppendUint16(dst, *(*uint16)(at))
		case reflect.Uint8, reflect.Bool:
			dst = append(dst, *(*uint8)(at))
		case reflect.Array:
			dst = append(dst, unsafe.Slice((*byte)(at), p.size)...)
		case reflect.Struct:
			t := (*time.Time)(at)
			dst = binary.BigEndian.AppendUint64(dst, uint64(t.Unix())^1<<63)
			dst = binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond()))
		case reflect.Func:
			// The function gets copies: with dst or k, every key of every type
			// would have to be on the heap.
			kept := *k
			raw := p.codec.encode(unsafe.Add(unsafe.Pointer(&kept), p.offset))
			dst = appendTerminated(dst, unsafe.String(unsafe.SliceData(raw), len(raw)))
		}
	}
	return dst
}

// appendTerminated writes a NUL within s as 00 FF and ends with 00 01. Both
// sort below every other byte followed by anything, and the end sorts first.
func appendTerminated(dst []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			return append(append(dst, s...), 0, 1)
		}
		dst = append(append(dst, s[:i]...), 0, 0xff)
		s = s[i+1:]
	}
}
