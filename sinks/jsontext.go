package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

var errNotJSON = errors.New("malformed JSON")

// members walks through the members of a JSON object without copying them. It
// checks no more than it needs to find their ends.
type members struct {
	text        []byte
	at          int
	name, value []byte // of the present member; the name without quotes and escapes
	err         error
	begun       bool
}

// next reports whether there is another member; if not, err may say why.
func (m *members) next() bool {
	if m.err != nil {
		return false
	}
	var ok bool
	m.name, m.value, ok = m.step()
	return ok
}

func (m *members) fail() ([]byte, []byte, bool) {
	m.err = fmt.Errorf("%w at byte %d", errNotJSON, m.at)
	return nil, nil, false
}

func (m *members) step() (name, value []byte, ok bool) {
	opener := byte(',')
	if !m.begun {
		m.begun, opener = true, '{'
	}
	m.space()
	if opener == ',' && m.is('}') {
		m.at++
		if m.space(); m.at != len(m.text) {
			return m.fail()
		}
		return nil, nil, false
	}
	if !m.is(opener) {
		return m.fail()
	}
	m.at++
	m.space()
	if opener == '{' && m.is('}') {
		m.at++
		return nil, nil, false
	}
	if !m.is('"') {
		return m.fail()
	}
	if name, ok = m.take(); !ok {
		return m.fail()
	}
	name, err := unquoteJSON(name)
	if err != nil {
		m.err = err
		return nil, nil, false
	}
	m.space()
	if !m.is(':') {
		return m.fail()
	}
	m.at++
	m.space()
	if value, ok = m.take(); !ok {
		return m.fail()
	}
	return name, value, true
}

func (m *members) is(b byte) bool { return m.at < len(m.text) && m.text[m.at] == b }

func (m *members) space() {
	for m.at < len(m.text) {
		switch m.text[m.at] {
		case ' ', '\t', '\r', '\n':
			m.at++
		default:
			return
		}
	}
}

// take returns the value that begins here and goes behind it.
func (m *members) take() ([]byte, bool) {
	end := valueEnd(m.text, m.at)
	if end < 0 {
		return nil, false
	}
	value := m.text[m.at:end:end]
	m.at = end
	return value, true
}

// valueEnd returns where the value ends that begins at i, or -1.
func valueEnd(text []byte, i int) int {
	if i >= len(text) {
		return -1
	}
	switch text[i] {
	case '"':
		return stringEnd(text, i)
	case '{', '[':
		depth := 0
		for i < len(text) {
			switch text[i] {
			case '"':
				if i = stringEnd(text, i); i < 0 {
					return -1
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 't', 'f', 'n':
		n := bytes.IndexAny(text[i:], ",]} \t\r\n")
		if n < 0 {
			return len(text)
		}
		return i + n
	}
	return -1
}

func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// unquoteJSON returns what a JSON string says, text itself where that has no
// escapes.
func unquoteJSON(text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != '"' {
		return nil, errNotJSON
	}
	inner := text[1 : len(text)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, nil
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	return []byte(s), nil
}

func isNull(value []byte) bool { return len(value) > 0 && value[0] == 'n' }
