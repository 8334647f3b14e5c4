package grid

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"unsafe"
)

// A codec turns keys of one type into bytes that sort as the keys do. No
// encoding is a prefix of another: integers and byte arrays have a fixed width,
// strings a terminator that cannot occur in them.
type codec struct {
	typ   reflect.Type
	parts []keyPart // one, or one for each field of a struct
}

type keyPart struct {
	field
	kind reflect.Kind
}

const keyTypes = "strings, integers, bools, byte arrays, and structs of exported fields of these"

// newCodec returns the codec of a key type, or an error that says why it has
// none.
func newCodec(t reflect.Type) (*codec, error) {
	c := &codec{typ: t}
	if t.Kind() != reflect.Struct {
		if !encodable(t) {
			return nil, fmt.Errorf("%s cannot be a key; keys are %s", t, keyTypes)
		}
		c.parts = []keyPart{{field: field{typ: t}, kind: t.Kind()}}
		return c, nil
	}
	columns := make(map[string]string)
	for _, f := range fieldsOf(t) {
		if f.column == "" {
			return nil, fmt.Errorf("%s cannot be a key: its field %s is not exported or has the tag db:\"-\"; every field of a key takes part", t, f.name)
		}
		if !encodable(f.typ) {
			return nil, fmt.Errorf("%s cannot be a key: its field %s is a %s; keys are %s", t, f.name, f.typ, keyTypes)
		}
		if other, twice := columns[f.column]; twice {
			return nil, fmt.Errorf("%s cannot be a key: its fields %s and %s both stand for column %q; rename one with a db tag", t, other, f.name, f.column)
		}
		columns[f.column] = f.name
		c.parts = append(c.parts, keyPart{field: f, kind: f.typ.Kind()})
	}
	if len(c.parts) == 0 {
		return nil, fmt.Errorf("%s cannot be a key: it has no fields", t)
	}
	return c, nil
}

func encodable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Array:
		return t.Elem().Kind() == reflect.Uint8 && t.Len() > 0
	default:
		return false
	}
}

// scalar reports whether the key is one column rather than a struct of them.
func (c *codec) scalar() bool { return c.typ.Kind() != reflect.Struct }

// columns lists the key's columns for messages.
func (c *codec) columns() string {
	names := make([]string, len(c.parts))
	for i, p := range c.parts {
		names[i] = p.column
	}
	return strings.Join(names, ", ")
}

// encodeKey appends the encoding of k, whose type the codec was made for.
func encodeKey[K comparable](c *codec, dst []byte, k *K) []byte {
	// A key is read through its address and the offsets of its fields, since
	// reflection would cost more than the look-up. newCodec took kinds and
	// offsets from this very type, so each pointer has its field's type up to
	// its name.
	base := unsafe.Pointer(k)
	for i := range c.parts {
		p := &c.parts[i]
		at := unsafe.Add(base, p.offset)
		switch p.kind { //nolint:exhaustive // encodable lists them
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
			dst = append(dst, unsafe.Slice((*byte)(at), p.typ.Size())...)
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
