package pgvalue

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
)

// numeric reports whether text of the type may be read as a number. Unknown
// types may: a domain over integer is one.
func (t *Type) numeric() bool {
	switch t.kind {
	case kindInt, kindOID, kindNumeric, kindFloat, kindText:
		return true
	default:
		return false
	}
}

// whole returns text without a fraction of zeros, which numeric(10, 2) prints
// for whole numbers.
func (t *Type) whole(text []byte) ([]byte, error) {
	if !t.numeric() {
		return nil, errNoWay
	}
	i := bytes.IndexByte(text, '.')
	if i <= 0 || t.kind != kindNumeric {
		return text, nil
	}
	if len(bytes.TrimLeft(text[i+1:], "0")) > 0 {
		return nil, errFraction
	}
	return text[:i], nil
}

func (t *Type) int(text []byte, bits int) (int64, error) {
	text, err := t.whole(text)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, bits)
}

func (t *Type) uint(text []byte, bits int) (uint64, error) {
	text, err := t.whole(text)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(string(text), 10, bits)
	if err != nil && len(text) > 1 && text[0] == '-' && digits(text[1:]) == len(text)-1 {
		err = strconv.ErrRange
	}
	return v, err
}

func (t *Type) float(text []byte, bits int) (float64, error) {
	if !t.numeric() {
		return 0, errNoWay
	}
	return strconv.ParseFloat(string(text), bits)
}

func (t *Type) float64(text []byte) (float64, error) { return t.float(text, 64) }

func (t *Type) bool(text []byte) (bool, error) {
	if t.kind != kindBool && t.kind != kindText {
		return false, errNoWay
	}
	switch string(text) {
	case "t", "true":
		return true, nil
	case "f", "false":
		return false, nil
	}
	return false, errBool
}

// bytes returns new memory.
func (t *Type) bytes(text []byte) ([]byte, error) {
	if t.kind != kindBytea {
		return append([]byte{}, text...), nil
	}
	digits, ok := bytes.CutPrefix(text, []byte(`\x`))
	if !ok {
		return nil, errBytea
	}
	b := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(b, digits); err != nil {
		return nil, errBytea
	}
	return b, nil
}

func (t *Type) uuid(text []byte) ([16]byte, error) {
	var id [16]byte
	if t.kind != kindUUID && t.kind != kindText {
		return id, errNoWay
	}
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return id, errUUID
	}
	var digits [32]byte
	n := copy(digits[:], text[:8])
	n += copy(digits[n:], text[9:13])
	n += copy(digits[n:], text[14:18])
	n += copy(digits[n:], text[19:23])
	copy(digits[n:], text[24:])
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return id, errUUID
	}
	return id, nil
}

func (t *Type) time(text []byte) (time.Time, error) {
	switch t.kind {
	case kindDate, kindTimestamp, kindTimestamptz, kindText:
		return parseTime(text)
	default:
		return time.Time{}, errNoWay
	}
}

func (t *Type) duration(text []byte) (time.Duration, error) {
	if t.kind == kindInterval {
		return parseInterval(text)
	}
	v, err := t.int(text, 64)
	return time.Duration(v), err
}

// value returns what Scan stores in a variable of type any.
func (t *Type) value(text []byte) (any, error) {
	switch t.kind {
	case kindInt, kindOID:
		return t.int(text, 64)
	case kindFloat:
		return t.float(text, 64)
	case kindBool:
		return t.bool(text)
	case kindBytea:
		return t.bytes(text)
	case kindDate, kindTimestamp, kindTimestamptz:
		if isInfinity(text) {
			return string(text), nil
		}
		return parseTime(text)
	case kindJSON:
		return json.RawMessage(append([]byte{}, text...)), nil
	case kindArray, kindVector:
		return t.values(text)
	case kindComposite, kindHstore:
		return scanMap[map[string]any](t, text)
	default:
		return string(text), nil
	}
}

// values returns the elements as []any; a nested array is an []any in turn.
func (t *Type) values(text []byte) (any, error) {
	s := []any{}
	err := t.each(text, func(i, n int, it element) error {
		if i == 0 {
			s = make([]any, n)
		}
		return t.scanElement(it, i, &s[i])
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}
