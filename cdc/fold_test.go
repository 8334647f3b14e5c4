package cdc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

type price struct{ ID, Price int }

// A fold rebuilds a table (id, price) from its events and notes what cannot
// be: a row created twice, changed before it exists, or a position that does
// not grow.
type fold struct {
	rows map[int]int
	last listeners.Position
	err  error
}

func (f *fold) OnBatch(_ context.Context, b *listeners.Batch) error {
	if b.Kind == listeners.Reset {
		f.rows = make(map[int]int)
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Position.Compare(f.last) <= 0 {
			f.err = fmt.Errorf("%s %s at %s comes after %s", e.Op, e.Key(), e.Position, f.last)
		}
		f.last = e.Position
		c, err := listeners.NewChange[price](e)
		if err != nil {
			return err
		}
		_, exists := f.rows[max(c.After.ID, c.Before.ID)]
		if created := e.Op == listeners.Create || e.Op == listeners.Read; created == exists {
			f.err = fmt.Errorf("%s of row %s, which exists: %t", e.Op, e.Key(), exists)
		}
		if e.Op == listeners.Delete {
			delete(f.rows, c.Before.ID)
		} else {
			f.rows[c.After.ID] = c.After.Price
		}
	}
	return nil
}

func (f *fold) String() string {
	var ids []int
	for id := range f.rows {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = fmt.Sprintf("%d=%d", id, f.rows[id])
	}
	return strings.Join(parts, " ")
}
