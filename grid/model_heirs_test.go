package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
)

// A throne is a source under one name, which is one region after the other.
type throne struct {
	mu    sync.Mutex
	book  *book
	books map[uint64]*book // by epoch
}

func (h *throne) ascend(l *book) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.books[l.epoch] != nil {
		return fmt.Errorf("two regions have epoch %x", l.epoch)
	}
	h.book, h.books[l.epoch] = l, l
	return nil
}

func (h *throne) reigning() *book {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.book
}

// Subscribe waits for the next region.
func (h *throne) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	for {
		sub, err := h.reigning().region.Subscribe(name, l, opts)
		if !errors.Is(err, grid.ErrClosed) && !errors.Is(err, listeners.ErrClosed) {
			return sub, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *throne) compare(at listeners.Position, state map[string]string) error {
	h.mu.Lock()
	l := h.books[at.Epoch]
	h.mu.Unlock()
	if l == nil {
		return fmt.Errorf("there is no %s", at)
	}
	return l.compare(at, state)
}

// heirs are the thrones of two regions, mirrors of both, and those who go on
// from one region to the next.
type heirs struct {
	draw    func(int) int
	near    *bustle
	far     *grid.Grid
	thrones [2]*throne
	mirrors [2]*grid.Region[string, int]
	keepers []*keeper
}

func (h *heirs) crown(seed uint64) (err error) {
	if h.near, err = newBustle(seed); err != nil {
		return err
	}
	for i, l := range h.near.books {
		if err := h.thrones[i].ascend(l); err != nil {
			return err
		}
	}
	return nil
}

// swap writes what nobody has changed since a mirror showed it.
func (h *heirs) swap(ctx context.Context) error {
	n, k, v := h.draw(2), string(rune('a'+h.draw(7))), 1<<22+8*h.near.next()
	l := h.thrones[n].reigning()
	seen, there := h.mirrors[n].Entry(k)
	pos, err := l.region.CompareAndPut(ctx, k, seen.Version, v)
	if err != nil {
		return nil // whatever refused it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if uint64(len(l.states)) < pos.Commit {
		return nil // the book is behind
	}
	if held, was := l.states[pos.Commit-1][k]; held != seen.Value || was != there {
		return fmt.Errorf("a swap of %s from %d (%t) at %s was done at %s, where it was %d (%t)", k, seen.Value, there, seen.Version, pos, held, was)
	}
	return nil
}

// look compares a mirror with the region that it shows.
func (h *heirs) look() error {
	n := h.draw(2)
	select {
	case <-h.mirrors[n].Ready():
	default:
		return nil
	}
	s := h.mirrors[n].Snapshot()
	state := make(map[string]string)
	for k, v := range s.All() {
		state[h.mirrors[n].Name()+"/"+k] = fmt.Sprint(v)
	}
	h.thrones[n].mu.Lock()
	l := h.thrones[n].books[s.Position().Epoch]
	h.thrones[n].mu.Unlock()
	if l != nil && l.heard() < s.Position().Commit {
		return nil // the book is behind
	}
	if err := h.thrones[n].compare(s.Position(), state); err != nil {
		return fmt.Errorf("mirror %d: %w", n, err)
	}
	return nil
}

func (l *book) heard() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.states) - 1)
}

// reign has everything happen at once for a while.
func (h *heirs) reign(ctx context.Context) error {
	w := h.near
	var busy, others sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for range 25 {
				w.write(ctx)
				w.useCache(ctx)
				time.Sleep(time.Duration(h.draw(3)) * time.Millisecond)
			}
		})
	}
	defer others.Wait()
	defer busy.Wait()
	for range 25 {
		time.Sleep(time.Duration(h.draw(5)) * time.Millisecond)
		k := h.keepers[h.draw(len(h.keepers))]
		if err := k.act(ctx, &others); err != nil {
			return fmt.Errorf("keeper of %s: %w", k.name, err)
		}
		brief, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		err := h.swap(brief)
		cancel()
		if err = errors.Join(err, h.look()); err != nil {
			return err
		}
	}
	return nil
}

// abdicate ends the regions. Who cannot go on by itself does so later, or never.
func (h *heirs) abdicate(ctx context.Context) error {
	for _, k := range h.keepers {
		k.sub.Resume()
	}
	closing, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	if err := h.near.grid.Close(closing); err != nil {
		return err
	}
	for _, l := range h.near.books {
		if err := l.check(); err != nil {
			return err
		}
	}
	return errors.Join(h.near.faults...)
}

func (h *heirs) settle(ctx context.Context) error {
	for i, m := range h.mirrors {
		r := h.thrones[i].reigning().region
		if got, want := maps.Collect(m.All()), maps.Collect(r.All()); m.Err() != nil || m.Position().Commit != r.Position().Commit || !maps.Equal(got, want) {
			return fmt.Errorf("mirror %d holds %v at %s, the region %v at %s; it ended: %w", i, got, m.Position(), want, r.Position(), m.Err())
		}
	}
	for _, k := range h.keepers {
		if err := k.settle(ctx); err != nil {
			return fmt.Errorf("keeper of %s, %s, retry %+v, it goes on by %q: %w", k.name, k.overflow, k.retry, k.resumes, err)
		}
	}
	return nil
}

func (h *heirs) play(ctx context.Context, seed uint64) error {
	const reigns = 3
	if err := h.crown(seed); err != nil {
		return err
	}
	linesCtx, hangUp := context.WithCancel(ctx)
	steady := make(chan struct{})
	var lines sync.WaitGroup
	var broken [2]error
	defer lines.Wait()
	defer hangUp()
	var list []kept
	for i, of := range h.thrones {
		l, name := newLine(of, h.draw), of.book.region.Name()
		var err error
		h.mirrors[i], err = grid.Mirror[string](h.far, name, l, &grid.MirrorOptions[int]{FeedBytes: int64(1 + h.draw(3000)), HistoryBytes: int64(h.draw(2) * h.draw(6000))})
		if err != nil {
			return err
		}
		lines.Go(func() { broken[i] = l.run(linesCtx, steady) })
		position := func() listeners.Position { return of.reigning().region.Position() }
		list = append(list, kept{name, of, position, valueOf[int], of.compare}, kept{"mirror " + name, h.mirrors[i], position, valueOf[int], of.compare})
	}
	for range 2 + h.draw(4) {
		k := newKeeper(list[h.draw(len(list))], h.draw)
		if err := k.begin(listeners.Position{}); err != nil {
			return err
		}
		h.keepers = append(h.keepers, k)
	}
	for n := range uint64(reigns) {
		if n > 0 {
			if err := h.abdicate(ctx); err != nil {
				return fmt.Errorf("the end of reign %d: %w", n-1, err)
			}
			time.Sleep(time.Duration(1+h.draw(20)) * time.Millisecond)
			if err := h.crown(seed + n<<40); err != nil {
				return err
			}
		}
		if err := h.reign(ctx); err != nil {
			return fmt.Errorf("reign %d: %w", n, err)
		}
	}
	for _, k := range h.keepers {
		k.rest()
	}
	close(steady)
	time.Sleep(time.Hour)
	synctest.Wait()
	if err := h.settle(ctx); err != nil {
		return err
	}
	hangUp()
	lines.Wait()
	return errors.Join(broken[:]...)
}

// A region is closed and made anew under its name, again and again, as with each
// start of a process: its mirrors, and who goes on by a position or a durable name,
// show what there is now, and never the one as if it were the other.
func TestWhoGoesOnIsToldOfARegionMadeAnew(t *testing.T) {
	few := 20
	if testing.Short() {
		few = 5
	}
	seedtest.Play(t, few, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { playHeirs(t, seed) })
	})
}

func playHeirs(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 5))
	var mu sync.Mutex
	h := &heirs{far: grid.New("far", nil), draw: func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}}
	for i := range h.thrones {
		h.thrones[i] = &throne{books: make(map[uint64]*book)}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := h.play(ctx, seed); err != nil {
		t.Error(err)
	}
	cancel()
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
	defer done()
	for _, g := range []*grid.Grid{h.far, h.near.grid} {
		if err := g.Close(closing); err != nil && !t.Failed() {
			t.Errorf("Close() = %v", err)
		}
	}
}
