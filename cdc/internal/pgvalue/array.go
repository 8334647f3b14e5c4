package pgvalue

import (
	"bytes"
	"errors"
)

// maxDim is the server's MAXDIM: an array has at most this many dimensions.
const maxDim = 6

var errMalformed = errors.New("malformed array")

// element is one item between the braces of an array.
type element struct {
	text    []byte // without the quotes; a nested array has its braces
	null    bool
	nested  bool // text is an array of one dimension less
	escaped bool // text has backslashes that [unescape] removes
}

// elements walks over the items of one pair of braces. It reads what array_out
// prints (PostgreSQL documentation, "Array Input and Output Syntax"), which is
// stricter than what array_in takes: no white space, nothing unquoted that would
// need quotes.
type elements struct {
	rest   []byte // from the next item on, the closing brace cut off
	delim  byte
	count  int
	nested bool // the first item was an array, so the others must be
}

// elementsOf starts a walk over text. Lower bounds before the braces are skipped:
// neither JSON nor a slice can hold them.
func elementsOf(text []byte, delim byte) (elements, bool) {
	if len(text) > 0 && text[0] == '[' {
		_, text, _ = bytes.Cut(text, []byte("="))
	}
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return elements{}, false
	}
	return elements{rest: text[1 : len(text)-1], delim: delim}, true
}

// done reports whether nothing is left.
func (e *elements) done() bool { return len(e.rest) == 0 }

// next returns the next item; call it only while not done.
func (e *elements) next() (element, bool) {
	var it element
	var n int // bytes of rest that the item takes
	switch e.rest[0] {
	case '"':
		n, it.escaped = quoted(e.rest)
		if n < 2 {
			return it, false
		}
		it.text = e.rest[1 : n-1]
	case '{':
		n = braced(e.rest)
		it.text, it.nested = e.rest[:n], true
	default:
		n = e.bare()
		it.text = e.rest[:n]
		it.null = string(it.text) == "NULL"
	}
	if n == 0 || (e.count > 0 && it.nested != e.nested) {
		return it, false
	}
	e.nested = it.nested
	e.count++
	e.rest = e.rest[n:]
	if len(e.rest) == 0 {
		return it, true
	}
	// A delimiter promises another item.
	if e.rest[0] != e.delim || len(e.rest) == 1 {
		return it, false
	}
	e.rest = e.rest[1:]
	return it, true
}

// bare returns the length of the unquoted item that rest starts with, or zero if
// it has a byte that would have been quoted.
func (e *elements) bare() int {
	for i, c := range e.rest {
		if c == e.delim {
			return i
		}
		if c == '"' || c == '\\' || c == '{' || c == '}' {
			return 0
		}
	}
	return len(e.rest)
}

// quoted returns the length of the quoted item that text starts with, quotes
// included, or zero if it does not end.
func quoted(text []byte) (n int, escaped bool) {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i + 1, escaped
		case '\\':
			escaped = true
			i++
		}
	}
	return 0, false
}

// braced returns the length of the nested array that text starts with, or zero
// if it does not end or is deeper than an array can be inside another.
func braced(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			n, _ := quoted(text[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '{':
			if depth++; depth == maxDim {
				return 0
			}
		case '}':
			depth--
			if depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// unescape appends text without its backslashes to dst.
func unescape(dst, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+1 == len(text) {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		dst = append(dst, text[i+1])
		text = text[i+2:]
	}
}

func (t *Type) appendArray(dst, text []byte) ([]byte, bool) {
	items, ok := elementsOf(text, t.delim)
	if !ok {
		return dst, false
	}
	start := len(dst)
	dst = append(dst, '[')
	for !items.done() {
		it, ok := items.next()
		if !ok {
			return dst[:start], false
		}
		if items.count > 1 {
			dst = append(dst, ',')
		}
		switch {
		case it.null:
			dst = append(dst, "null"...)
		case it.nested:
			if dst, ok = t.appendArray(dst, it.text); !ok {
				return dst[:start], false
			}
		case it.escaped:
			dst = t.elem.appendEscaped(dst, it.text)
		default:
			dst = t.elem.AppendJSON(dst, it.text)
		}
	}
	return append(dst, ']'), true
}

// appendEscaped is AppendJSON of an item with backslashes.
func (t *Type) appendEscaped(dst, text []byte) []byte {
	start := len(dst)
	return t.replaceTail(unescape(dst, text), start)
}

// replaceTail puts the JSON of the text that dst has from start on in place of
// that text. The JSON is made behind the text and then moved, so no other buffer
// is needed.
func (t *Type) replaceTail(dst []byte, start int) []byte {
	end := len(dst)
	dst = t.AppendJSON(dst, dst[start:end])
	n := copy(dst[start:], dst[end:])
	return dst[:start+n]
}

// appendVector reads int2vector and oidvector, which to_jsonb treats as arrays
// though they print as numbers with spaces between.
func (t *Type) appendVector(dst, text []byte) []byte {
	dst = append(dst, '[')
	for len(text) > 0 {
		i := bytes.IndexByte(text, t.delim)
		if i < 0 || i+1 == len(text) {
			dst = t.elem.AppendJSON(dst, text)
			break
		}
		dst = t.elem.AppendJSON(dst, text[:i])
		dst = append(dst, ',')
		text = text[i+1:]
	}
	return append(dst, ']')
}
