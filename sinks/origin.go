package sinks

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// An origin is a collection that a decoder knows, with the schemas that its
// messages had.
type origin struct {
	source, namespace, name string

	current *listeners.Schema // of the last whole record
	schemas map[string]*listeners.Schema
}

// origin returns what an address names, without its operation and partition.
func (d *Decoder) origin(address, source string) (*origin, error) {
	cut := strings.LastIndexByte(address, '.')
	if cut >= 0 {
		cut = strings.LastIndexByte(address[:cut], '.')
	}
	if cut < 0 {
		return nil, fmt.Errorf("%q is no address", address)
	}
	prefix := address[:cut]
	if o := d.origins[prefix]; o != nil && o.source == source {
		return o, nil
	}
	tokens := strings.Split(prefix, ".")
	for i, t := range tokens {
		name, err := UnescapeToken(t)
		if err != nil {
			return nil, err
		}
		tokens[i] = name
	}
	o := &origin{source: source, schemas: make(map[string]*listeners.Schema)}
	switch {
	case len(tokens) == 4 && tokens[0] == "cdc":
		o.namespace, o.name = tokens[2], tokens[3]
	case len(tokens) == 3 && tokens[0] == "grid":
		o.name = tokens[2]
	default:
		return nil, fmt.Errorf("%q is no address of a table or region", address)
	}
	if len(d.origins) >= maxSchemas {
		clear(d.origins)
	}
	d.origins[strings.Clone(prefix)] = o
	return o, nil
}

// fill gives an event its records and schema.
func (o *origin) fill(e *listeners.Event, m *body) error {
	var err error
	if m.after != nil {
		if e.After, err = o.record(m.after, m.key, m.unchanged, false); err != nil {
			return fmt.Errorf("after: %w", err)
		}
	}
	if m.before != nil {
		key := m.key
		if m.oldKey != nil {
			key = m.oldKey
		}
		if e.Before, err = o.record(m.before, key, nil, false); err != nil {
			return fmt.Errorf("before: %w", err)
		}
	}
	old := m.oldKey
	if e.Op == listeners.Delete {
		old = m.key
	}
	if old != nil && m.before == nil {
		if e.OldKey, err = o.record(old, old, nil, true); err != nil {
			return fmt.Errorf("key: %w", err)
		}
	}
	for _, r := range [...]listeners.Record{e.After, e.Before, e.OldKey} {
		if e.Schema = r.Schema(); e.Schema != nil {
			return nil
		}
	}
	if o.current == nil { // a truncate of what nobody has heard of
		o.current = listeners.NewSchema(o.source, o.namespace, o.name, nil)
	}
	e.Schema = o.current
	return nil
}

// record makes a record of an object. The names in key are those of the key
// columns. Of a record of which only the key is known, the other columns are
// unchanged, if there are any.
func (o *origin) record(object, key, unchanged []byte, keyOnly bool) (listeners.Record, error) {
	if o.current != nil {
		ok, err := hasKey(o.current, key)
		if err != nil {
			return listeners.Record{}, err
		}
		if ok {
			if r, fits := o.fit(object, unchanged, keyOnly); fits {
				return listeners.NewRecord(r), nil
			}
		}
	}
	return o.learn(object, key, unchanged, keyOnly)
}

// hasKey reports whether the names in key are the schema's key.
func hasKey(s *listeners.Schema, key []byte) (bool, error) {
	n := 0
	if key != nil {
		it := members{text: key}
		for it.next() {
			i := s.Index(string(it.name))
			if i < 0 || !s.Columns[i].Key {
				return false, nil
			}
			n++
		}
		if it.err != nil {
			return false, it.err
		}
	}
	return n == len(s.Key()), nil
}

// fit reads an object whose columns are those of the current schema.
func (o *origin) fit(object, unchanged []byte, keyOnly bool) (*jsonRow, bool) {
	s := o.current
	r := &jsonRow{schema: s, values: make([][]byte, len(s.Columns))}
	found, i := 0, 0
	it := members{text: object}
	for it.next() {
		if i >= len(s.Columns) || s.Columns[i].Name != string(it.name) {
			if i = s.Index(string(it.name)); i < 0 {
				return nil, false
			}
		}
		if r.values[i] == nil {
			found++
		}
		r.values[i] = it.value
		i++
	}
	if it.err != nil {
		return nil, false
	}
	if keyOnly {
		return r, found == len(s.Key())
	}
	if unchanged != nil {
		names, err := stringsOf(unchanged)
		if err != nil {
			return nil, false
		}
		for _, name := range names {
			if i := s.Index(name); i < 0 || r.values[i] != nil {
				return nil, false
			}
			found++
		}
	}
	return r, found == len(s.Columns)
}

// learn reads an object with other columns than those of the current schema.
func (o *origin) learn(object, key, unchanged []byte, keyOnly bool) (listeners.Record, error) {
	keys := make(map[string]bool)
	if key != nil {
		it := members{text: key}
		for it.next() {
			keys[string(it.name)] = true
		}
		if it.err != nil {
			return listeners.Record{}, it.err
		}
	}
	var columns []listeners.Column
	var values [][]byte
	var signature strings.Builder
	add := func(name string, value []byte) {
		columns = append(columns, listeners.Column{Name: name, Key: keys[name]})
		values = append(values, value)
		fmt.Fprintf(&signature, "%q %t ", name, keys[name])
	}
	it := members{text: object}
	for it.next() {
		add(string(it.name), it.value)
	}
	if it.err != nil {
		return listeners.Record{}, it.err
	}
	if unchanged != nil {
		names, err := stringsOf(unchanged)
		if err != nil {
			return listeners.Record{}, fmt.Errorf("unchanged: %w", err)
		}
		for _, name := range names {
			add(name, nil)
		}
	}
	s := o.schemas[signature.String()]
	if s == nil {
		if len(o.schemas) >= maxOriginSchemas {
			clear(o.schemas)
		}
		s = listeners.NewSchema(o.source, o.namespace, o.name, columns)
		o.schemas[signature.String()] = s
	}
	if !keyOnly {
		o.current = s
	}
	return listeners.NewRecord(&jsonRow{schema: s, values: values}), nil
}

// maxOriginSchemas bounds what is remembered of one collection. Messages of the
// application may each have other columns.
const maxOriginSchemas = 64

func stringsOf(text []byte) ([]string, error) {
	var names []string
	err := json.Unmarshal(text, &names)
	return names, err
}
