package sinks

import (
	"fmt"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A State is what the batches of a source add up to: the rows that there are
// after them. It holds one record for each row. The zero State is empty. One
// goroutine at a time.
type State struct {
	tables   map[string]*stateTable
	order    []*stateTable
	source   string
	tx       listeners.Tx
	position listeners.Position
}

// A stateTable holds the rows of a collection in the order in which they came.
type stateTable struct {
	collection string
	places     map[string]int // of the rows, by the text of the key
	rows       []stateRow     // with gaps
	text       []byte
}

type stateRow struct {
	record   listeners.Record // absent in a gap
	position listeners.Position
}

// Position returns that of the last batch.
func (s *State) Position() listeners.Position { return s.position }

// Apply takes the next batch. Columns that an update left out are those of the
// row so far. The error names a collection whose rows have no key, so that
// nobody can say which row is gone.
func (s *State) Apply(b *listeners.Batch) error {
	s.source, s.position = b.Source, b.Position
	if !b.Tx.Time.IsZero() {
		s.tx = listeners.Tx{Time: b.Tx.Time}
	}
	switch b.Kind {
	case listeners.Reset:
		if b.Collections == nil {
			s.tables, s.order = nil, nil
		}
		for _, c := range b.Collections {
			s.table(c).clear()
		}
	case listeners.Live:
	case listeners.Changes, listeners.Snapshot:
		for i := range b.Events {
			if err := s.event(&b.Events[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *State) table(collection string) *stateTable {
	if t := s.tables[collection]; t != nil {
		return t
	}
	t := &stateTable{collection: collection, places: make(map[string]int)}
	if s.tables == nil {
		s.tables = make(map[string]*stateTable)
	}
	s.tables[collection] = t
	s.order = append(s.order, t)
	return t
}

func (s *State) event(e *listeners.Event) error {
	if e.Op == listeners.Message {
		return nil
	}
	t := s.table(e.Schema.Collection())
	if e.Op == listeners.Truncate {
		t.clear()
		return nil
	}
	key := e.Key()
	if key.Len() == 0 {
		return fmt.Errorf("sinks: %s has no key, so nobody can tell its present rows from its history; leave it out, or give it a replica identity", t.collection)
	}
	record := e.After
	if old, changed := e.ChangedKey(); changed {
		record = Fill(record, t.remove(old))
	}
	if e.Op == listeners.Delete {
		t.remove(key)
		return nil
	}
	t.put(key, record, e.Position)
	return nil
}

func (t *stateTable) clear() {
	clear(t.places)
	t.rows = nil
}

func (t *stateTable) put(key listeners.Key, r listeners.Record, at listeners.Position) {
	t.text = key.Append(t.text[:0])
	if i, ok := t.places[string(t.text)]; ok {
		t.rows[i].record, t.rows[i].position = Fill(r, t.rows[i].record), at
		return
	}
	t.places[string(t.text)] = len(t.rows)
	t.rows = append(t.rows, stateRow{record: r, position: at})
}

// remove returns what it removed, or the absent record.
func (t *stateTable) remove(key listeners.Key) listeners.Record {
	t.text = key.Append(t.text[:0])
	i, ok := t.places[string(t.text)]
	if !ok {
		return listeners.Record{}
	}
	removed := t.rows[i].record
	delete(t.places, string(t.text))
	t.rows[i] = stateRow{}
	if len(t.rows) > 64 && len(t.rows) > 2*len(t.places) {
		t.compact()
	}
	return removed
}

func (t *stateTable) compact() {
	kept := make([]stateRow, 0, len(t.places))
	for _, row := range t.rows {
		if row.record.Exists() {
			e := listeners.Event{Op: listeners.Read, After: row.record}
			t.text = e.Key().Append(t.text[:0])
			t.places[string(t.text)] = len(kept)
			kept = append(kept, row)
		}
	}
	t.rows = kept
}

// Fill returns a record whose unchanged columns are those of an older version.
func Fill(newer, older listeners.Record) listeners.Record {
	if !older.Exists() || !newer.Exists() {
		return newer
	}
	missing := newer.Unchanged()
	if missing == nil {
		return newer
	}
	s := newer.Schema()
	filled := &jsonRow{schema: s, values: make([][]byte, len(s.Columns))}
	for i, c := range s.Columns {
		v := newer.At(i)
		if v.State() == listeners.Unchanged {
			v = older.Get(c.Name)
		}
		if v.State() == listeners.Unchanged {
			continue
		}
		text, err := v.MarshalJSON()
		if err != nil {
			continue // only for unchanged columns
		}
		filled.values[i] = text
	}
	return listeners.NewRecord(filled)
}

// Tell emits the state as a subscription with [listeners.SubscribeOptions].Current
// hears it: Reset, batches of at most 1000 Read events (at least one batch, even
// if it is empty), Live. The markers have the state's position, each row that of
// its own last change.
func (s *State) Tell(emit func(*listeners.Batch) error) error {
	if s.tx.Time.IsZero() {
		s.tx.Time = time.Now()
	}
	step := func(kind listeners.Kind) *listeners.Batch {
		return &listeners.Batch{
			Kind: kind, Source: s.source, Tx: s.tx, Position: s.position, First: true, Last: true, Size: batchBytes,
		}
	}
	if err := emit(step(listeners.Reset)); err != nil {
		return err
	}
	left := 0
	for _, t := range s.order {
		left += len(t.places)
	}
	b := step(listeners.Snapshot)
	flush := func() error {
		left -= len(b.Events)
		b.Last = left == 0
		next := step(listeners.Snapshot)
		next.First = false
		full := b
		b = next
		return emit(full)
	}
	if left == 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	for _, t := range s.order {
		for i := range t.rows {
			row := &t.rows[i]
			if !row.record.Exists() {
				continue
			}
			b.Events = append(b.Events, listeners.Event{
				Op: listeners.Read, Cause: listeners.CauseSnapshot, Position: row.position,
				Schema: row.record.Schema(), After: row.record,
			})
			b.Size += partBytes
			if len(b.Events) == snapshotRows {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if len(b.Events) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return emit(step(listeners.Live))
}

// Reach says that the state is that at a position, behind the last batch: what
// came since then was not wanted.
func (s *State) Reach(p listeners.Position) {
	if p.Compare(s.position) > 0 {
		s.position = p
	}
}
