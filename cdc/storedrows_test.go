package cdc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

// A storedRows is a sink of tables (id, price) that outlives sources: it remembers
// positions, and drops what it has. It notes what cannot be.
type storedRows struct {
	// before is called before each batch, and may block or refuse it.
	before func(context.Context, *listeners.Batch) error

	mu     sync.Mutex
	tables map[string]map[int]int
	last   listeners.Position
	resets [][]string // of each Reset; nil for all collections
	reads  map[string]int
	lives  int
	faults []error
}

func (l *storedRows) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if l.before != nil {
		if err := l.before(ctx, b); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tables == nil {
		l.tables, l.reads = make(map[string]map[int]int), make(map[string]int)
	}
	switch b.Kind {
	case listeners.Reset:
		l.resets = append(l.resets, b.Collections)
		if b.Collections == nil {
			clear(l.tables)
		}
		for _, c := range b.Collections {
			delete(l.tables, c)
		}
	case listeners.Live:
		l.lives++
	case listeners.Changes, listeners.Snapshot:
	}
	for i := range b.Events {
		if err := l.event(&b.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *storedRows) event(e *listeners.Event) error {
	if e.Position.Compare(l.last) <= 0 {
		if e.Op == listeners.Read {
			l.faults = append(l.faults, fmt.Errorf("%s %s at %s comes after %s", e.Op, e.Key(), e.Position, l.last))
		}
		return nil
	}
	l.last = e.Position
	c, err := listeners.NewChange[price](e)
	if err != nil {
		return err
	}
	name := e.Schema.Collection()
	if l.tables[name] == nil {
		l.tables[name] = make(map[int]int)
	}
	id := c.After.ID
	if e.Op == listeners.Delete {
		id = c.Before.ID
	}
	_, exists := l.tables[name][id]
	if created := e.Op == listeners.Create || e.Op == listeners.Read; created == exists {
		l.faults = append(l.faults, fmt.Errorf("%s of %s/%d at %s, which exists: %t", e.Op, name, id, e.Position, exists))
	}
	switch e.Op {
	case listeners.Read:
		l.reads[name]++
		l.tables[name][id] = c.After.Price
	case listeners.Delete:
		delete(l.tables[name], id)
	default:
		l.tables[name][id] = c.After.Price
	}
	return nil
}

// check compares the storedRows with the tables of schema public.
func (l *storedRows) check(t testing.TB, conn *pgx.Conn, tables ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.faults {
		if i < 5 {
			t.Error(err)
		}
	}
	for _, table := range tables {
		var want string
		sql := "SELECT coalesce(string_agg(id||'='||price, ' ' ORDER BY id), '') FROM " + table
		if err := conn.QueryRow(t.Context(), sql).Scan(&want); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		rows := l.tables["public."+table]
		parts := make([]string, 0, len(rows))
		for _, id := range slices.Sorted(maps.Keys(rows)) {
			parts = append(parts, fmt.Sprintf("%d=%d", id, rows[id]))
		}
		if got := strings.Join(parts, " "); got != want {
			t.Errorf("%s: the folded events differ from the table:\n got %.1000s\nwant %.1000s", table, got, want)
		}
	}
}

func (l *storedRows) subscribe(t testing.TB, opts *listeners.SubscribeOptions) func(*cdc.Source) {
	return func(src *cdc.Source) {
		src.SetChunkPages(2)
		if _, err := src.Subscribe("storedRows", l, opts); err != nil {
			t.Fatal(err)
		}
	}
}

// A savedState is what a test reads of a source's state file.
type savedState struct {
	Snapshot *struct {
		Slot        string
		Publication string
		At          cdc.LSN
		Done        map[string]uint32
	}
}

func stateFile(dir string, src *cdc.Source) string {
	return filepath.Join(dir, src.Slot()+".state.json")
}

func readState(t testing.TB, dir string, src *cdc.Source) savedState {
	t.Helper()
	var s savedState
	data, err := os.ReadFile(stateFile(dir, src))
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}
