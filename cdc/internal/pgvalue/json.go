package pgvalue

import (
	"bytes"

	"github.com/rowcall/rowcall/listeners"
)

// AppendJSON appends the JSON of text to dst and returns the extended slice. It
// allocates only to grow dst. text must not overlap the spare capacity of dst.
//
// Text that Postgres never sends for the type becomes a JSON string, so the
// result is always valid JSON, with one exception: the text of json and jsonb,
// and of their arrays' elements, is copied as it is, on one line. Inside a
// composite it is looked at: the composite may have been altered since.
func (t *Type) AppendJSON(dst, text []byte) []byte {
	switch t.kind {
	case kindInt, kindNumeric, kindFloat:
		if isNumber(text) {
			return append(dst, text...)
		}
	case kindBool:
		switch string(text) {
		case "t":
			return append(dst, "true"...)
		case "f":
			return append(dst, "false"...)
		}
	case kindTimestamp, kindTimestamptz:
		if out, ok := appendTimestamp(dst, text); ok {
			return out
		}
	case kindJSON:
		start := len(dst)
		dst = append(dst, text...)
		// A line break of a json value is white space, since in a string it is
		// escaped; who writes one document a line must not find it.
		for _, lineBreak := range [...]byte{'\n', '\r'} {
			for at := start; ; {
				i := bytes.IndexByte(dst[at:], lineBreak)
				if i < 0 {
					break
				}
				at += i
				dst[at] = ' '
			}
		}
		return dst
	case kindArray:
		if out, ok := t.appendArray(dst, text); ok {
			return out
		}
	case kindVector:
		return t.appendVector(dst, text)
	case kindComposite:
		if out, ok := t.appendComposite(dst, text); ok {
			return out
		}
	case kindHstore:
		if out, ok := appendHstore(dst, text); ok {
			return out
		}
	default:
	}
	return listeners.AppendJSONString(dst, text)
}

// isNumber reports whether text is a JSON number (RFC 8259, section 6).
func isNumber(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("-"))
	n := digits(text)
	if n == 0 || (n > 1 && text[0] == '0') {
		return false
	}
	text = text[n:]
	if len(text) > 0 && text[0] == '.' {
		n = digits(text[1:])
		if n == 0 {
			return false
		}
		text = text[1+n:]
	}
	if len(text) > 0 && (text[0] == 'e' || text[0] == 'E') {
		text = text[1:]
		if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
			text = text[1:]
		}
		n = digits(text)
		return n > 0 && n == len(text)
	}
	return len(text) == 0
}

// digits returns the number of decimal digits that text starts with.
func digits(text []byte) int {
	for i, c := range text {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(text)
}

// appendTimestamp appends "date time[offset][ BC]" in the form of ISO 8601 that
// JsonEncodeDateTime prints: a T between date and time, and an offset that is
// never hours alone. It knows every byte it copies, hence needs no escapes.
func appendTimestamp(dst, text []byte) ([]byte, bool) {
	i := span(text, "-")
	date, rest := text[:i], text[i:]
	if len(date) == 0 || len(rest) < 2 || rest[0] != ' ' {
		return dst, false
	}
	rest = rest[1:]
	i = span(rest, ":.")
	clock, rest := rest[:i], rest[i:]
	if len(clock) == 0 {
		return dst, false
	}
	var offset []byte
	if len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
		i = 1 + span(rest[1:], ":")
		if i < len("+00") {
			return dst, false
		}
		offset, rest = rest[:i], rest[i:]
	}
	if len(rest) > 0 && string(rest) != " BC" {
		return dst, false
	}
	dst = append(dst, '"')
	dst = append(dst, date...)
	dst = append(dst, 'T')
	dst = append(dst, clock...)
	dst = append(dst, offset...)
	if len(offset) == len("+00") {
		dst = append(dst, ":00"...)
	}
	dst = append(dst, rest...)
	return append(dst, '"'), true
}

// span returns the length of the longest start of text made of decimal digits
// and the bytes in extra.
func span(text []byte, extra string) int {
	for i, c := range text {
		if (c < '0' || c > '9') && c != extra[0] && c != extra[len(extra)-1] {
			return i
		}
	}
	return len(text)
}
