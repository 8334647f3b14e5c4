package listeners

import (
	"bytes"
	"unicode/utf8"
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
		dst = appendJSONString(dst, c.Name)
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

// appendJSONString appends s as a JSON string (RFC 8259 section 7). Bytes that
// are not UTF-8 become U+FFFD.
func appendJSONString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= ' ' && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		if b == '"' || b == '\\' {
			dst = append(dst, '\\', b)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xf])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
