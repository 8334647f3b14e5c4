package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A shelf stores the position of one name, unless it is broken.
type shelf struct {
	mu     sync.Mutex
	stored listeners.Position
	broken bool
}

func (s *shelf) Open(context.Context, string) (listeners.PositionKeeper, listeners.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.stored, nil
}

func (s *shelf) Save(_ context.Context, p listeners.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errDrawn
	}
	s.stored = p
	return nil
}

func (s *shelf) Close() error { return nil }

func (s *shelf) breaks(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// A kept is what keepers may subscribe to.
type kept struct {
	name     string
	src      listeners.Source
	position func() listeners.Position
	value    func(*listeners.Event) (string, error) // of After
	check    func(at listeners.Position, state map[string]string) error
}

func valueOf[V any](e *listeners.Event) (string, error) {
	c, err := listeners.NewChange[V](e)
	switch v := any(c.After).(type) {
	case item:
		return v.Name + "|" + v.Text, err
	default:
		return fmt.Sprint(v), err
	}
}

// A keeper rebuilds the state from what it is successfully handed, by one
// subscription after the other.
type keeper struct {
	kept

	draw     func(int) int
	overflow listeners.Overflow
	backlog  int64
	retry    *listeners.RetryPolicy
	resumes  string // "", "from" or "name"
	pause    time.Duration
	fails    int // one callback of so many; 0 for none
	shelf    shelf
	sub      *listeners.Subscription
	current  bool // asked for
	over     bool // it has ended for good

	mu    sync.Mutex
	calm  bool // it does not fail any more
	live  bool
	state map[string]string             // by collection/key
	last  map[string]listeners.Position // by key, since the last restart or reset
	high  listeners.Position            // of all that it has heard since the last reset
	later []keeperGlimpse
	heard []string
	wrong error
}

type keeperGlimpse struct {
	at    listeners.Position
	state map[string]string
}

func newKeeper(of kept, draw func(int) int) *keeper {
	k := &keeper{kept: of, draw: draw, last: make(map[string]listeners.Position), state: make(map[string]string)}
	k.overflow = []listeners.Overflow{
		listeners.OverflowBlock, listeners.OverflowBlock, listeners.OverflowConflate, listeners.OverflowReset, listeners.OverflowDisconnect,
	}[draw(5)]
	k.backlog = int64(1 + draw(4000))
	k.resumes = []string{"", "from", "name", "name"}[draw(4)]
	k.pause = time.Duration(draw(4)*draw(3)) * time.Millisecond
	k.fails = []int{0, 2, 5, 12}[draw(4)]
	if draw(4) > 0 {
		k.retry = &listeners.RetryPolicy{Attempts: 1 + draw(3), Delay: time.Millisecond, Park: draw(4) > 0, ParkMax: []int{0, 0, 5}[draw(3)]}
	}
	return k
}

func (k *keeper) begin(from listeners.Position) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.sub == nil
	opts := &listeners.SubscribeOptions{
		Current: true, From: from, Overflow: k.overflow, BacklogBytes: k.backlog, Retry: k.retry, SaveInterval: 3 * time.Millisecond,
	}
	if k.resumes == "name" {
		opts.Positions = &k.shelf
	}
	if !first && k.overflow != listeners.OverflowReset && k.draw(3) == 0 {
		saved, _ := k.sub.Saved()
		opts.Current = from.IsZero() && saved.IsZero()
	}
	k.current = opts.Current
	if from.IsZero() && k.resumes != "name" {
		k.live = false // it is told anew, and until then has no position to go on from
	}
	var err error
	k.sub, err = k.src.Subscribe("keeper of "+k.name, k, opts)
	return err
}

func (k *keeper) OnBatch(_ context.Context, b *listeners.Batch) error {
	if k.pause > 0 {
		time.Sleep(k.pause)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.calm && k.fails > 0 && k.draw(k.fails) == 0 {
		if k.draw(3) == 0 {
			panic(errDrawn)
		}
		return errDrawn
	}
	k.hear(b)
	return nil
}

func (k *keeper) fault(b *listeners.Batch, format string, args ...any) {
	if k.wrong == nil {
		k.wrong = fmt.Errorf("%s at %s: %w", b.Kind, b.Position, fmt.Errorf(format, args...))
	}
}

func (k *keeper) hear(b *listeners.Batch) {
	k.heard = append(k.heard, fmt.Sprintf("%s %d.%d", b.Kind, b.Position.Commit, b.Position.Index))
	switch b.Kind {
	case listeners.Reset:
		clear(k.state)
		clear(k.last)
		k.live, k.high = false, listeners.Position{}
	case listeners.Live:
		k.live = true
	case listeners.Snapshot, listeners.Changes:
		if !b.First || !b.Last {
			if b.Kind == listeners.Changes {
				k.fault(b, "a region sends no parts")
			}
		}
	}
	touched := make(map[string]bool)
	for i := range b.Events {
		e := &b.Events[i]
		id := e.Schema.Collection() + "/" + e.Key().String()
		if old, moved := e.ChangedKey(); moved {
			was := e.Schema.Collection() + "/" + old.String()
			delete(k.state, was)
			touched[was] = true
		}
		switch e.Op {
		case listeners.Truncate:
			maps.DeleteFunc(k.state, func(id, _ string) bool { return strings.HasPrefix(id, e.Schema.Collection()+"/") })
			continue
		case listeners.Delete:
			delete(k.state, id)
		case listeners.Create, listeners.Update, listeners.Read, listeners.Message:
			v, err := k.value(e)
			if err != nil {
				k.fault(b, "%s of %s: %w", e.Op, id, err)
			}
			k.state[id] = v
		}
		touched[id] = true
	}
	for id := range touched {
		if p, ok := k.last[id]; ok && b.Position.Compare(p) <= 0 {
			k.fault(b, "%s comes after or again, it was heard of at %s", id, p)
		}
		k.last[id] = b.Position
	}
	if b.Position.Compare(k.high) < 0 {
		return // heard again after a restart, or retried
	}
	k.high = b.Position
	if k.live && len(k.sub.Parked()) == 0 {
		k.later = append(k.later, keeperGlimpse{b.Position, maps.Clone(k.state)})
	}
}

// act does one thing to its subscription; what may block goes to the group.
func (k *keeper) act(ctx context.Context, others *sync.WaitGroup) error {
	switch k.draw(8) {
	case 0:
		k.sub.Pause()
	case 1, 2:
		k.sub.Resume()
	case 3:
		return k.restart(ctx, false)
	case 4:
		return k.restart(ctx, k.resumes == "name")
	case 5, 6:
		sub := k.sub
		for _, p := range sub.Parked() {
			others.Go(func() {
				brief, cancel := context.WithTimeout(ctx, 7*time.Millisecond)
				defer cancel()
				_ = sub.RetryParked(brief, p.ID) // what comes of it is checked at the end
			})
		}
	case 7:
		k.discard()
	}
	return nil
}

// discard gives up the first parked batch and does its work by hand.
func (k *keeper) discard() {
	k.mu.Lock() // so that nothing else is handed over meanwhile
	defer k.mu.Unlock()
	for _, p := range k.sub.Parked() {
		if p.Behind != 0 || k.sub.DiscardParked(p.ID) != nil {
			continue
		}
		if !p.Stale {
			k.hear(p.Batch)
		}
		return
	}
}

// restart ends its subscription, or finds it ended, and goes on with another
// one. In a crash the last position is not stored.
func (k *keeper) restart(ctx context.Context, crash bool) error {
	if k.resumes == "" || k.over {
		return nil
	}
	k.shelf.breaks(crash)
	if err := k.sub.CloseWait(ctx); err != nil {
		return err
	}
	k.shelf.breaks(false)
	if err := k.excuse(crash); err != nil || k.over {
		return err
	}
	k.mu.Lock()
	clear(k.last)
	from := listeners.Position{}
	if k.resumes == "from" && k.live {
		from = k.sub.Stored()
	}
	k.heard = append(k.heard, fmt.Sprintf("restart from %d.%d after %v", from.Commit, from.Index, k.sub.Err()))
	k.mu.Unlock()
	return k.begin(from)
}

// excuse returns an error if its subscription ended for a reason that it has
// not asked for.
func (k *keeper) excuse(crash bool) error {
	err := k.sub.Err()
	_, gone := errors.AsType[*listeners.HistoryError](err)
	_, lagged := errors.AsType[*listeners.LaggedError](err)
	_, full := errors.AsType[*listeners.ParkFullError](err)
	its, failed := errors.AsType[*listeners.ListenerError](err)
	switch {
	case err == nil, crash && errors.Is(err, errDrawn), full, failed && drawn(its):
	case gone && !k.current:
		k.over = true // its history was not kept
	case lagged && (k.overflow == listeners.OverflowDisconnect || k.overflow == listeners.OverflowConflate && !k.current):
	default:
		return fmt.Errorf("it ended: %w", err)
	}
	return nil
}

// rest has it fail and wait no more.
func (k *keeper) rest() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calm = true
	k.sub.Resume()
}

// settle has it catch up, and compares what it has rebuilt.
func (k *keeper) settle(ctx context.Context) error {
	for !k.over {
		k.sub.Resume()
		time.Sleep(time.Hour)
		synctest.Wait()
		if !isDone(k.sub) {
			break
		}
		if err := k.excuse(false); err != nil {
			return err
		}
		k.over = k.over || k.resumes == ""
		if err := k.restart(ctx, false); err != nil {
			return err
		}
	}
	if !k.over {
		if err := k.empty(ctx); err != nil {
			return err
		}
		// Not the region's position: a mirror that is told anew what it knows has
		// no event for that.
		k.mu.Lock()
		high := k.high
		k.mu.Unlock()
		brief, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		if err := k.sub.Wait(brief, high); err != nil {
			return fmt.Errorf("wait for %s: %w", high, err)
		}
		if lag := k.sub.Lag(); lag != (listeners.Lag{}) {
			return fmt.Errorf("it is behind: %+v", lag)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wrong != nil {
		return k.wrong
	}
	for _, g := range k.later {
		if err := k.check(g.at, g.state); err != nil {
			return fmt.Errorf("%w; heard %q", err, k.heard)
		}
	}
	if k.over {
		return nil
	}
	if err := k.check(k.position(), k.state); err != nil {
		return fmt.Errorf("in the end: %w; heard %q", err, k.heard)
	}
	return nil
}

// empty retries what is parked.
func (k *keeper) empty(ctx context.Context) error {
	for {
		parked := k.sub.Parked()
		if len(parked) == 0 {
			return nil
		}
		p := parked[0]
		err := k.sub.RetryParked(ctx, p.ID)
		if p.Stale {
			if !errors.Is(err, listeners.ErrStale) {
				return fmt.Errorf("RetryParked(%d) of a stale one = %w, want ErrStale", p.ID, err)
			}
			err = k.sub.DiscardParked(p.ID)
		}
		if err != nil && !errors.Is(err, listeners.ErrNotParked) { // it followed another by itself
			return err
		}
	}
}

// regionKept is a region whose states a book has.
func regionKept(r *grid.Region[string, int], name string, l *book) kept {
	return kept{name, r, r.Position, valueOf[int], l.compare}
}

// compare returns an error if the state, by collection/key, is not the region's
// at this position.
func (l *book) compare(at listeners.Position, state map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.Commit >= uint64(len(l.states)) || at.Epoch != l.epoch {
		return fmt.Errorf("there is no %s", at)
	}
	want := make(map[string]string)
	for k, v := range l.states[at.Commit] {
		want[l.region.Name()+"/"+k] = fmt.Sprint(v)
	}
	if !maps.Equal(want, state) {
		return fmt.Errorf("rebuilt %v at %s, want %v", state, at, want)
	}
	return nil
}
