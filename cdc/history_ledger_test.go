package cdc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A historyRow is a row by column. Columns are named "c12_3": what comes before
// the "_" identifies a column for ever, and the number after it grows with each
// renaming, so that rows from before and after one can be compared.
type historyRow map[string]string

func column(name string) string {
	id, _, _ := strings.Cut(name, "_")
	return id
}

// at returns the JSON of a column. A row from before the column was added has
// its default: "c12" was added with DEFAULT 12, others without one.
func (r historyRow) at(column string) string {
	if v, ok := r[column]; ok {
		return v
	}
	if number, ok := strings.CutPrefix(column, "c"); ok {
		return number
	}
	return "null"
}

// key identifies a row of any table of a history.
func (r historyRow) key() string { return r.at("id") + "/" + r.at("year") }

// A ledger is what a sink's broker would be: it keeps what was stored, whatever
// happens to the source and to the listener, and refuses what it has. It folds
// the events into tables and notes the first thing that cannot be.
type ledger struct {
	mu     sync.Mutex
	tables map[string]map[string]historyRow // by collection and key
	last   listeners.Position
	live   bool // the last snapshot is stored to its end
	err    error
	doubt  error // a transaction is not whole, unless a Reset follows
	events int
	resets int
	twins  int // refused, for they were stored before
	parts  int // batches that are not a whole transaction
}

func (l *ledger) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

// isLive reports whether the tables are whole. Before, a snapshot that goes on is
// told the changes of those tables alone that it has read.
func (l *ledger) isLive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live
}

// whole looks at the end of a transaction of so many events: its last one says
// how many there are. A source that ended when its snapshot was stored, and did not
// know it yet, goes on with the tables that it knows of, and a Reset for the others.
func (l *ledger) whole(b *listeners.Batch, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := b.Events[len(b.Events)-1]
	if l.doubt != nil {
		return
	}
	if end.Schema.Name != "tx" {
		l.doubt = fmt.Errorf("batch %s at %s: a transaction ends with %s of %s", b.Kind, b.Position, end.Op, end.Schema.Collection())
		return
	}
	if want := rowOf(end.After).at("events"); want != fmt.Sprint(count-1) {
		l.doubt = fmt.Errorf("batch %s at %s: a transaction of %d events, want %s, and that which says so: %v", b.Kind, b.Position, count, want, rowOf(end.After))
	}
}

// failed returns the first thing that cannot be.
func (l *ledger) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// verdict is failed at the end, when every transaction has to be whole.
func (l *ledger) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.doubt)
}

func (l *ledger) position() listeners.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *ledger) store(b *listeners.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Kind == listeners.Reset {
		if b.Position.Compare(l.last) < 0 {
			l.fail("reset at %s comes after %s", b.Position, l.last)
		}
		if l.last, l.live, l.doubt = b.Position, false, nil; len(b.Collections) == 0 {
			l.tables = make(map[string]map[string]historyRow)
		}
		for _, name := range b.Collections { // a snapshot that goes on reads the rest
			delete(l.tables, name)
		}
		l.resets++
		return
	}
	l.live = l.live || b.Kind == listeners.Live
	if !b.First || !b.Last {
		l.parts++
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Position.Compare(l.last) <= 0 {
			l.twins++
			continue
		}
		l.last = e.Position
		l.events++
		if err := l.apply(e); err != nil {
			l.fail("%s of %s at %s: %w", e.Op, e.Schema.Collection(), e.Position, err)
		}
	}
	if b.Position.Compare(l.last) > 0 {
		l.last = b.Position
	}
}

// apply changes a table as an event says.
func (l *ledger) apply(e *listeners.Event) error {
	name := e.Schema.Collection()
	table := l.tables[name]
	if table == nil {
		table = make(map[string]historyRow)
		l.tables[name] = table
	}
	if e.Op == listeners.Truncate {
		clear(table)
		return nil
	}
	before, after := rowOf(e.Before), rowOf(e.After)
	if e.Key().Len() > 0 && e.After.Exists() && !strings.HasPrefix(after.key()+"/", e.Key().String()+"/") {
		return fmt.Errorf("its key is %s, its row %s", e.Key(), after.key())
	}
	if e.Op == listeners.Create || e.Op == listeners.Read {
		if old, exists := table[after.key()]; exists {
			return fmt.Errorf("row %s exists: %v", after.key(), old)
		}
		table[after.key()] = after
		return nil
	}
	was := after
	switch {
	case e.Before.Exists():
		was = before
	case e.OldKey.Exists():
		was = rowOf(e.OldKey)
	}
	old, exists := table[was.key()]
	if !exists {
		return fmt.Errorf("there is no row %s", was.key())
	}
	for c, v := range before {
		if old.at(c) != v {
			return fmt.Errorf("column %s of row %s was %.40s, the event says %.40s", c, was.key(), old.at(c), v)
		}
	}
	delete(table, was.key())
	if e.Op == listeners.Delete {
		return nil
	}
	for _, c := range e.After.Unchanged() {
		after[column(c)] = old.at(column(c))
	}
	// Every update counts: a missing, repeated or swapped one shows here.
	var from, to int
	if err := errors.Join(json.Unmarshal([]byte(old.at("n")), &from), json.Unmarshal([]byte(after.at("n")), &to)); err != nil {
		return err
	}
	if to != from+1 {
		return fmt.Errorf("row %s goes from number %d to %d", was.key(), from, to)
	}
	if other, exists := table[after.key()]; exists {
		return fmt.Errorf("the new key %s exists: %v", after.key(), other)
	}
	table[after.key()] = after
	return nil
}

func rowOf(r listeners.Record) historyRow {
	if !r.Exists() {
		return nil
	}
	row := make(historyRow)
	for c, v := range r.All() {
		if v.State() == listeners.Unchanged {
			continue
		}
		doc, err := v.MarshalJSON()
		if err != nil {
			doc = []byte(err.Error())
		}
		row[column(c.Name)] = string(doc)
	}
	return row
}

// diff compares a table with the database's own idea of it, rows as to_jsonb
// writes them.
func (l *ledger) diff(name string, docs []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	table := maps.Clone(l.tables[name])
	for _, doc := range docs {
		var values map[string]json.RawMessage
		if err := json.Unmarshal([]byte(doc), &values); err != nil {
			return err
		}
		want := make(historyRow)
		for c, v := range values {
			want[column(c)] = string(v)
		}
		got, ok := table[want.key()]
		if !ok {
			return fmt.Errorf("%s: row %.200s never arrived", name, doc)
		}
		for c, v := range want {
			if got.at(c) != v {
				return fmt.Errorf("%s: column %s of row %s is %.80s, want %.80s", name, c, want.key(), got.at(c), v)
			}
		}
		delete(table, want.key())
	}
	if len(table) > 0 {
		keys := slices.Sorted(maps.Keys(table))
		return fmt.Errorf("%s: %d rows are in no table, such as %s: %v", name, len(keys), keys[0], table[keys[0]])
	}
	return nil
}

// A session is a listener of one source. It checks the shape of what comes and
// stores it in the ledger: at once, or a while after it has said that it took
// it.
type session struct {
	ledger *ledger
	late   bool

	mu      sync.Mutex
	pending []*listeners.Batch
	last    listeners.Position
	open    *listeners.Batch // the last one, unless it ended a transaction
	count   int              // of events of the open transaction
	dead    bool
}

var errCrashed = errors.New("crashed")

var _ listeners.Durable = (*session)(nil)

// crash loses what was taken and not stored.
func (s *session) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead, s.pending = true, nil
}

// storeFor stores what was taken, some time later, until ctx ends.
func (s *session) storeFor(ctx context.Context, r *rand.Rand) {
	for {
		timer := time.NewTimer(time.Duration(r.IntN(20)) * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		s.mu.Lock()
		n := len(s.pending)
		if n > 1 {
			n = r.IntN(n) + 1
		}
		s.storePending(n)
		s.mu.Unlock()
	}
}

func (s *session) storePending(n int) {
	for _, b := range s.pending[:n] {
		s.ledger.store(b)
	}
	s.pending = s.pending[n:]
}

func (s *session) OnBatch(_ context.Context, b *listeners.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errCrashed
	}
	if err := s.check(b); err != nil {
		s.ledger.mu.Lock()
		s.ledger.fail("batch %s at %s: %w", b.Kind, b.Position, err)
		s.ledger.mu.Unlock()
	}
	s.pending = append(s.pending, b)
	if !s.late {
		s.storePending(len(s.pending))
	}
	return s.ledger.failed()
}

// check looks at what must be so whatever was stored before.
func (s *session) check(b *listeners.Batch) error {
	for i := range b.Events {
		p := b.Events[i].Position
		if p.Compare(s.last) <= 0 {
			return fmt.Errorf("position %s comes after %s", p, s.last)
		}
		if p.Commit != b.Position.Commit {
			return fmt.Errorf("an event at %s", p)
		}
		s.last = p
	}
	if n := len(b.Events); n > 0 && b.Position != s.last {
		return fmt.Errorf("its last event is at %s", s.last)
	}
	if b.Kind == listeners.Reset || b.Kind == listeners.Live {
		s.open = nil // a snapshot may begin again
		return nil
	}
	if s.open != nil && s.open.Kind == listeners.Snapshot && b.Kind == listeners.Changes {
		s.open = nil // it was interrupted, and goes on
	}
	if o := s.open; b.First != (o == nil) || (o != nil && (o.Tx != b.Tx || o.Position.Commit != b.Position.Commit)) {
		if o == nil {
			o = &listeners.Batch{}
		}
		return fmt.Errorf("first %t, transaction %+v, after a part of %+v at %s", b.First, b.Tx, o.Tx, o.Position)
	}
	if b.First {
		s.count = 0
	}
	s.count += len(b.Events)
	if s.open = b; !b.Last {
		return nil
	}
	s.open = nil
	if b.Kind != listeners.Changes || !s.ledger.isLive() {
		return nil
	}
	s.ledger.whole(b, s.count)
	return nil
}

func (s *session) Stored() listeners.Position { return s.ledger.position() }

func (s *session) Stalled() <-chan struct{} { return nil }

func (s *session) Flush(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errCrashed
	}
	s.storePending(len(s.pending))
	return s.ledger.failed()
}
