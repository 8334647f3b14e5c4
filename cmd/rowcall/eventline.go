package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// columns are the members of a JSON object, in their order. Nil stands for a
// missing object and for null.
type columns []column

type column struct {
	name  string
	value string // JSON
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *columns) UnmarshalJSON(text []byte) (err error) {
	*c, err = parseColumns(text)
	return err
}

// parseColumns reads a JSON object. Nothing and null give no columns.
func parseColumns(text []byte) (columns, error) {
	if len(text) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	start, err := d.Token()
	if err != nil || start == nil {
		return nil, err
	}
	if start != json.Delim('{') {
		return nil, fmt.Errorf("%.20q is not a JSON object", text)
	}
	var c columns
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		text, _ := name.(string) // the name of a member is always one
		c = append(c, column{name: text, value: string(value)})
	}
	_, err = d.Token() // the closing brace
	return c, err
}

func (c columns) find(name string) (string, bool) {
	for _, col := range c {
		if col.name == name {
			return col.value, true
		}
	}
	return "", false
}

// An eventPrinter lays lines out in columns that grow as needed.
type eventPrinter struct {
	palette palette
	layout  string // of the time
	width   int    // of the widest subject so far
}

// maxSubjectWidth bounds the column of subjects: a longer one shifts its line.
const maxSubjectWidth = 40

var opColours = map[string]colour{
	"create": green, "read": cyan, "update": yellow, "delete": red, "truncate": magenta, "reset": magenta, "live": magenta, "message": cyan,
}

// format returns one line, without a line break.
func (p *eventPrinter) format(m *sinks.Message) string {
	op := m.Op.String()
	if m.Reset {
		op = "reset"
	}
	if m.Live {
		op = "live"
	}
	rows, err := parseRows(m)
	key := rows.key.text()
	var details string
	switch {
	case err != nil:
		details = "unreadable: " + harmless(err.Error())
	case m.Reset:
		details = "events may be missing before this; the rows as they stand now follow"
		if len(m.Collections) > 0 {
			details += ", of " + harmless(strings.Join(m.Collections, ", ")) + " only"
		}
	case m.Live:
		details = "the rows are complete"
	case m.Op == listeners.Truncate:
		details = "all rows are gone"
	default:
		if m.Op == listeners.Message {
			rows.after = rows.after.message()
		}
		details = p.details(m, rows)
	}
	subject := harmless(m.Collection)
	if key != "" {
		subject += "/" + key
	}
	p.width = max(p.width, min(utf8.RuneCountInString(subject), maxSubjectWidth))
	at := m.Time.Local().Format(p.layout)
	if m.Time.IsZero() { // a message outside of a transaction
		at = strings.Repeat(" ", len(p.layout))
	}
	line := p.palette.paint(faint, at) + "  " +
		p.palette.paint(opColours[op], fmt.Sprintf("%-8s", op)) + "  " +
		p.palette.paint(bold, fmt.Sprintf("%-*s", p.width, subject))
	return strings.TrimRight(line+"  "+details, " ")
}

// rows are the records of a message.
type rows struct{ key, oldKey, before, after columns }

func parseRows(m *sinks.Message) (r rows, err error) {
	for _, part := range []struct {
		text []byte
		to   *columns
	}{{m.Key, &r.key}, {m.OldKey, &r.oldKey}, {m.Before, &r.before}, {m.After, &r.after}} {
		if *part.to, err = parseColumns(part.text); err != nil {
			return r, err
		}
	}
	return r, nil
}

// text returns the values, joined by "/", strings without their quotes.
func (c columns) text() string {
	parts := make([]string, len(c))
	for i, col := range c {
		var s string
		if json.Unmarshal([]byte(col.value), &s) != nil {
			s = col.value
		}
		parts[i] = harmless(s)
	}
	return strings.Join(parts, "/")
}

// details returns what changed: old and new values where both are known, else
// what there is.
func (p *eventPrinter) details(m *sinks.Message, r rows) string {
	var parts []string
	add := func(name, values string) {
		parts = append(parts, p.palette.paint(faint, harmless(name)+"=")+values)
	}
	for _, old := range r.oldKey {
		if now, _ := r.key.find(old.name); now != old.value {
			add(old.name, short(old.value)+" -> "+short(now))
		}
	}
	row := r.after
	if m.Op == listeners.Delete {
		row = r.before
	}
	for _, col := range row {
		if _, isKey := r.key.find(col.name); isKey {
			continue // the key is shown already
		}
		before, known := r.before.find(col.name)
		switch {
		case m.Op != listeners.Update || !known:
			add(col.name, short(col.value))
		case before != col.value:
			add(col.name, short(before)+" -> "+short(col.value))
		}
	}
	if len(m.Unchanged) > 0 && r.before == nil {
		parts = append(parts, p.palette.paint(faint, "(as before: "+harmless(strings.Join(m.Unchanged, ", "))+")"))
	}
	return strings.Join(parts, "  ")
}

// message leaves out what a logical message says twice: its prefix is the
// subject, and its content is shown as text if it is text. What an outbox has
// stays as it is.
func (c columns) message() columns {
	if _, ok := c.find("content"); !ok {
		return c
	}
	twice := "content"
	if text, _ := c.find("text"); text == "" || text == "null" {
		twice = "text"
	}
	return slices.DeleteFunc(slices.Clone(c), func(col column) bool { return col.name == "prefix" || col.name == twice })
}

// maxValue is how many characters of a value are shown.
const maxValue = 60

func short(value string) string {
	value = harmless(value)
	if utf8.RuneCountInString(value) <= maxValue {
		return value
	}
	runes := []rune(value)
	return string(runes[:maxValue-1]) + "…"
}

// harmless escapes what a terminal might obey or what would hide other text:
// control characters and invisible formatting. The text comes from rows, which
// anybody may have written.
func harmless(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}
