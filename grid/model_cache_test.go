package grid_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rowcall/rowcall/grid"
)

// A cache is some keys of a region that nobody writes: they are loaded from a
// store, and deleted when the store has changed.
type cache struct {
	w      *bustle
	region *grid.Region[string, int]
	loader *grid.Loader[string, int]

	mu    sync.Mutex
	rows  map[string][]int // all that the store ever had, 0 for nothing; the last is there
	floor map[string]int   // the first of rows that may still be found
}

func newCache(w *bustle, r *grid.Region[string, int]) (*cache, error) {
	c := &cache{w: w, region: r, rows: make(map[string][]int), floor: make(map[string]int)}
	ms := func(of ...int) time.Duration { return time.Duration(of[w.draw(len(of))]) * time.Millisecond }
	var err error
	c.loader, err = grid.NewLoader(r, c.load, &grid.LoaderOptions{TTL: ms(0, 0, 8), NegativeTTL: ms(0, 3, 40), MaxNegative: 1 + w.draw(3)})
	return c, err
}

// load reads the store first, so that the rest of its time is for others.
func (c *cache) load(ctx context.Context, k string) (int, bool, error) {
	c.mu.Lock()
	var v int
	if rows := c.rows[k]; len(rows) > 0 {
		v = rows[len(rows)-1]
	}
	c.mu.Unlock()
	timer := time.NewTimer(time.Duration(c.w.draw(4)) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	}
	switch c.w.draw(20) {
	case 0:
		return 0, false, errDrawn
	case 1:
		panic(errDrawn)
	}
	return v, v != 0, nil
}

// useCache changes a row of the store, or asks for one.
func (w *bustle) useCache(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(1+w.draw(40))*time.Millisecond, errPatience)
	defer cancel()
	c := w.books[w.draw(2)].cache
	k := fmt.Sprint("l", w.draw(3))
	if w.draw(3) == 0 {
		c.changed(ctx, k)
	} else {
		c.ask(ctx, k)
	}
}

func (c *cache) changed(ctx context.Context, k string) {
	v := 0
	if c.w.draw(3) > 0 {
		v = 1<<30 + 4*c.w.next()
	}
	c.mu.Lock()
	if c.rows[k] == nil {
		c.rows[k] = []int{0}
	}
	c.rows[k] = append(c.rows[k], v)
	last := len(c.rows[k]) - 1
	c.mu.Unlock()
	var err error
	if c.w.draw(12) == 0 {
		_, err = c.region.Clear(ctx)
	} else {
		_, _, err = c.region.Delete(ctx, k)
	}
	if err == nil {
		c.mu.Lock()
		c.floor[k] = max(c.floor[k], last)
		c.mu.Unlock()
	} else if ctx.Err() == nil && !errors.Is(err, grid.ErrClosed) {
		c.w.fault("invalidate %s: %w", k, err)
	}
}

// ask checks that what is found is not older than what was there, with the
// region told, before the call.
func (c *cache) ask(ctx context.Context, k string) {
	c.mu.Lock()
	from := c.floor[k]
	c.mu.Unlock()
	v, found, err := c.loader.Get(ctx, k)
	c.mu.Lock()
	rows := append([]int{0}, c.rows[k]...)[min(1, len(c.rows[k])):]
	c.mu.Unlock()
	p, panicked := errors.AsType[*grid.LoadPanicError](err)
	switch {
	case err == nil:
		if found == (v == 0) || !slices.Contains(rows[from:], v) {
			c.w.fault("the loader found %s as %d, %t, where the store had %d, of which %d are gone", k, v, found, rows, from)
		}
	case ctx.Err() != nil, errors.Is(err, errDrawn), errors.Is(err, grid.ErrClosed), panicked && p.Value == any(errDrawn):
	default:
		c.w.fault("load %s: %w", k, err)
	}
}
