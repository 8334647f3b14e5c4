package pgvalue

import (
	"bytes"
	"errors"
)

var errHstore = errors.New("malformed hstore")

// pair takes the first of the pairs that hstore_out prints: a quoted key, an
// arrow, and a quoted value or NULL, with a comma and a space between pairs.
// Backslashes escape as they do in arrays.
func pair(text []byte) (key, value element, rest []byte, ok bool) {
	key, text, ok = quotedItem(text)
	if !ok {
		return key, value, nil, false
	}
	if text, ok = bytes.CutPrefix(text, []byte("=>")); !ok {
		return key, value, nil, false
	}
	if rest, ok = bytes.CutPrefix(text, []byte("NULL")); ok {
		value.null = true
	} else if value, rest, ok = quotedItem(text); !ok {
		return key, value, nil, false
	}
	if len(rest) == 0 {
		return key, value, nil, true
	}
	// A comma promises another pair.
	rest, ok = bytes.CutPrefix(rest, []byte(", "))
	return key, value, rest, ok && len(rest) > 0
}

func quotedItem(text []byte) (it element, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return it, nil, false
	}
	n, escaped := quoted(text)
	if n == 0 {
		return it, nil, false
	}
	return element{text: text[1 : n-1], escaped: escaped}, text[n:], true
}

// plainText reads the strings of hstore.
var plainText = &Type{name: "text"}

// appendHstore appends the object of strings that the cast of hstore to json
// makes, which is what to_jsonb uses.
func appendHstore(dst, text []byte) ([]byte, bool) {
	start := len(dst)
	dst = append(dst, '{')
	for len(text) > 0 {
		key, value, rest, ok := pair(text)
		if !ok {
			return dst[:start], false
		}
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = plainText.appendItem(dst, key)
		dst = append(dst, ':')
		dst = plainText.appendItem(dst, value)
		text = rest
	}
	return append(dst, '}'), true
}

func (t *Type) appendItem(dst []byte, it element) []byte {
	switch {
	case it.null:
		return append(dst, "null"...)
	case it.escaped:
		return t.appendEscaped(dst, it.text)
	default:
		return t.AppendJSON(dst, it.text)
	}
}
