package grid_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// tags collects what a listener hears of tags and causes.
type tags struct {
	mu    sync.Mutex
	heard []string
}

func (l *tags) OnBatch(_ context.Context, b *listeners.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.Events {
		e := &b.Events[i]
		l.heard = append(l.heard, e.Cause.String()+" "+e.Op.String()+" "+b.Tx.Tag)
	}
	return nil
}

func (l *tags) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

func TestATagGoesWithEveryWriteToEveryListener(t *testing.T) {
	g := newGrid(t)
	r := open[string, int](t, g, "r", nil)
	m, err := grid.Mirror[string, int](g, "m", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.WaitReady(deadline(t)); err != nil {
		t.Fatal(err)
	}
	here, there := new(tags), new(tags)
	subscribe(t, r, here, nil)
	subscribe(t, m, there, nil)
	tag := func(s string) context.Context { return grid.WithTag(deadline(t), s) }
	steps := []struct {
		tag, event string
		write      func(context.Context) error
	}{
		{"put", "write create", func(ctx context.Context) error { _, err := r.Put(ctx, "a", 1); return err }},
		{"", "write update", func(ctx context.Context) error { _, err := r.Put(ctx, "a", 2); return err }},
		{"insert", "write create", func(ctx context.Context) error { _, err := r.Insert(ctx, "b", 1); return err }},
		{"compare", "write update", func(ctx context.Context) error {
			e, _ := r.Entry("b")
			_, err := r.CompareAndPut(ctx, "b", e.Version, 2)
			return err
		}},
		{"update", "write update", func(ctx context.Context) error {
			_, err := r.Update(ctx, "b", func(v int) (int, error) { return v + 1, nil })
			return err
		}},
		{"delete", "write delete", func(ctx context.Context) error { _, _, err := r.Delete(ctx, "b"); return err }},
		{"all", "write create", func(ctx context.Context) error {
			_, err := r.PutAll(ctx, maps.All(map[string]int{"c": 3}))
			return err
		}},
		{"do", "write create", func(ctx context.Context) error {
			return g.Do(ctx, func(tx *grid.Tx) error { return grid.In(tx, r).Put("d", 4) })
		}},
		{"clear", "clear truncate", func(ctx context.Context) error { _, err := r.Clear(ctx); return err }},
	}
	var want, mirrored []string
	for _, s := range steps {
		ctx := deadline(t)
		if s.tag != "" {
			ctx = tag(s.tag)
		}
		if err := s.write(ctx); err != nil {
			t.Fatalf("%s: %v", s.tag, err)
		}
		want = append(want, s.event+" "+s.tag)
		if s.event[:5] == "write" {
			s.event = "mirror" + s.event[5:]
		}
		mirrored = append(mirrored, s.event+" "+s.tag)
	}
	wait(t, "both listeners", func() bool { return len(here.all()) >= len(want) && len(there.all()) >= len(want) })
	if got := here.all(); !slices.Equal(got, want) {
		t.Errorf("the region's listener heard %q, want %q", got, want)
	}
	if got := there.all(); !slices.Equal(got, mirrored) {
		t.Errorf("the mirror's listener heard %q, want %q", got, mirrored)
	}
}

func TestATagIsInTheChangeAndALaterOneReplacesIt(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	heard := make(chan string, 1)
	subscribe(t, r, listeners.Handlers[int]{OnCreate: func(_ context.Context, c listeners.Change[int]) error {
		heard <- c.Tx.Tag
		return nil
	}}, nil)
	if _, err := r.Put(grid.WithTag(grid.WithTag(deadline(t), "first"), "second"), "a", 1); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-heard:
		if got != "second" {
			t.Errorf("Tx.Tag = %q, want %q", got, "second")
		}
	case <-deadline(t).Done():
		t.Fatal("no event")
	}
}
