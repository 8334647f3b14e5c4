package pgvalue

import (
	"bytes"
	"encoding/json"
	"errors"
)

var errComposite = errors.New("malformed composite, or one with another number of fields")

// attributes walks over what record_out prints (PostgreSQL documentation,
// "Composite Type Input and Output Syntax"): nothing for NULL, quotes around what
// is empty or has a character of the syntax, and in them both quotes and
// backslashes doubled.
type attributes struct {
	rest []byte // from the next item on, the closing parenthesis cut off
	more bool   // another item follows, maybe an empty one
}

// attributesOf starts a walk over text that should have n items.
func attributesOf(text []byte, n int) (attributes, bool) {
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return attributes{}, false
	}
	a := attributes{rest: text[1 : len(text)-1]}
	a.more = n > 0 || len(a.rest) > 0
	return a, true
}

// next returns the next item, and false if there is none or it is malformed.
// [unescapeField] removes what an escaped item has too much.
func (a *attributes) next() (element, bool) {
	if !a.more {
		return element{}, false
	}
	var it element
	n := 0
	if len(a.rest) > 0 && a.rest[0] == '"' {
		if n, it.escaped = quotedField(a.rest); n == 0 {
			return it, false
		}
		it.text = a.rest[1 : n-1]
	} else {
		for n < len(a.rest) && a.rest[n] != ',' {
			switch a.rest[n] {
			case '"', '\\', '(', ')':
				return it, false
			}
			n++
		}
		it.text, it.null = a.rest[:n], n == 0
	}
	a.rest = a.rest[n:]
	if a.more = len(a.rest) > 0; a.more {
		if a.rest[0] != ',' {
			return it, false
		}
		a.rest = a.rest[1:]
	}
	return it, true
}

// quotedField returns the length of the quoted item that text starts with, quotes
// included, or zero if it does not end.
func quotedField(text []byte) (n int, escaped bool) {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			if i+1 == len(text) || text[i+1] != '"' {
				return i + 1, escaped
			}
			escaped = true
			i++
		case '\\':
			escaped = true
			i++
		}
	}
	return 0, false
}

// unescapeField appends text without the first of each pair of quotes and
// without its backslashes to dst.
func unescapeField(dst, text []byte) []byte {
	for {
		i := bytes.IndexAny(text, `"\`)
		if i < 0 || i+1 == len(text) {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		dst = append(dst, text[i+1])
		text = text[i+2:]
	}
}

func (t *Type) appendComposite(dst, text []byte) ([]byte, bool) {
	items, ok := attributesOf(text, len(t.fields))
	if !ok {
		return dst, false
	}
	start := len(dst)
	dst = append(dst, '{')
	for i := range t.fields {
		f := &t.fields[i]
		it, ok := items.next()
		if !ok {
			return dst[:start], false
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, f.key...)
		switch {
		case it.null:
			dst = append(dst, "null"...)
		case it.escaped:
			at := len(dst)
			dst = f.typ.replaceTail(unescapeField(dst, it.text), at)
		default:
			dst = f.typ.AppendJSON(dst, it.text)
		}
	}
	if items.more {
		return dst[:start], false
	}
	dst = append(dst, '}')
	if t.json && !json.Valid(dst[start:]) {
		return dst[:start], false
	}
	return dst, true
}

// split returns the text of the fields without its escapes; that of the others is
// part of text.
func (t *Type) split(text []byte) ([]element, error) {
	items, ok := attributesOf(text, len(t.fields))
	values := make([]element, len(t.fields))
	for i := range values {
		if !ok {
			break
		}
		values[i], ok = items.next()
		if values[i].escaped {
			values[i].text = unescapeField(nil, values[i].text)
		}
	}
	if !ok || items.more {
		return nil, errComposite
	}
	return values, nil
}

// Fits reports whether all composites in text have as many fields as their
// types. If not, a composite was altered before or after t was looked up.
func (t *Type) Fits(text []byte) bool {
	if !t.shaped {
		return true
	}
	if t.kind == kindArray {
		return t.each(text, func(_, _ int, it element) error {
			reader := t.elem
			if it.nested {
				reader = t
			}
			if !it.null && !reader.Fits(it.text) {
				return errComposite
			}
			return nil
		}) == nil
	}
	values, err := t.split(text)
	if err != nil {
		return false
	}
	for i, v := range values {
		if !v.null && !t.fields[i].typ.Fits(v.text) {
			return false
		}
	}
	return true
}
