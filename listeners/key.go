package listeners

import (
	"bytes"
)

// A Key is the identity of a row within its collection: the key columns of one
// of its records, in column order. The zero Key, of a table without a key or
// of a truncate, is empty.
type Key struct{ row Row }

// Len returns the number of key columns.
func (k Key) Len() int {
	if k.row == nil {
		return 0
	}
	return len(k.row.Schema().Key())
}

// At returns the i-th key column.
func (k Key) At(i int) (*Column, Value) {
	s := k.row.Schema()
	c := s.Key()[i]
	return &s.Columns[c], Value{row: k.row, i: c}
}

// String returns the key's text: the columns' texts, joined by "/". A "%", a
// "/" and every byte outside visible ASCII are written %XX, and a column that
// has no value (NULL, which REPLICA IDENTITY FULL allows) is a lone "%". So the
// text fits a header, and two keys of a collection never share one.
func (k Key) String() string { return string(k.Append(nil)) }

// Append appends the text of [Key.String] to dst.
func (k Key) Append(dst []byte) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := range k.Len() {
		if i > 0 {
			dst = append(dst, '/')
		}
		_, v := k.At(i)
		if v.State() != Present {
			dst = append(dst, '%')
			continue
		}
		for _, b := range v.Bytes() {
			if b <= ' ' || b >= 0x7f || b == '%' || b == '/' {
				dst = append(dst, '%', hexDigits[b>>4], hexDigits[b&0xf])
				continue
			}
			dst = append(dst, b)
		}
	}
	return dst
}

// AppendJSON appends the key as a JSON object, {} if it is empty.
func (k Key) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range k.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		c, v := k.At(i)
		dst = AppendJSONString(dst, c.Name)
		dst = append(dst, ':')
		dst = v.row.AppendJSON(dst, v.i)
	}
	return append(dst, '}')
}

// MarshalJSON implements [encoding/json.Marshaler].
func (k Key) MarshalJSON() ([]byte, error) { return k.AppendJSON(nil), nil }

// Equal reports whether both keys have the same columns' texts.
func (k Key) Equal(o Key) bool {
	if k.Len() != o.Len() {
		return false
	}
	for i := range k.Len() {
		_, a := k.At(i)
		_, b := o.At(i)
		if a.State() != b.State() || !bytes.Equal(a.Bytes(), b.Bytes()) {
			return false
		}
	}
	return true
}
