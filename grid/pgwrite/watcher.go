package pgwrite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A mirror is a region without its types.
type mirror interface {
	listeners.Source
	Name() string
	WaitReady(ctx context.Context) error
	Done() <-chan struct{}
	Err() error
	Position() listeners.Position
	Told() listeners.Position
}

// A watcher hears a mirror, and tells those who wait for a transaction. It
// never waits itself, so nobody waits for it.
type watcher struct {
	region mirror
	table  string
	sub    *listeners.Subscription

	mu    sync.Mutex
	waits map[*wait]struct{}
	heard shown // last
}

// A shown is what a batch says of transactions other than its own.
type shown struct {
	at     listeners.Position
	read   bool // it ends a state that was read anew
	passed bool // it is of a transaction
}

func shownBy(b *listeners.Batch) shown {
	return shown{
		at: b.Position, read: b.Kind != listeners.Reset && b.Kind != listeners.Snapshot && b.Tx.ID == 0,
		passed: b.Kind == listeners.Changes && b.Tx.ID != 0,
	}
}

// A wait is for one transaction to be shown by one mirror.
type wait struct {
	watch  *watcher
	tx     uint64
	behind uint64 // an LSN after its commit; 0 if unknown

	over chan struct{}
	at   listeners.Position
	err  error
}

var (
	errTimeout = errors.New("it took too long: does its source run, and is the table in the source's publication?")
	errPassed  = errors.New("it shows a later transaction, and nothing of this one: the source's publication leaves the change out (a row filter, a column list, or the operations it publishes)")
)

func (w *Writer) watchRegion(r mirror, table string) (*watcher, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.New("the writer is closed")
	}
	v := &watcher{region: r, table: table, waits: make(map[*wait]struct{})}
	sub, err := r.Subscribe("pgwrite "+table, v, nil)
	if err != nil {
		return nil, err
	}
	v.sub = sub
	w.watches = append(w.watches, v)
	return v, nil
}

// OnBatch implements [listeners.Listener]. The region shows the batch already.
func (v *watcher) OnBatch(_ context.Context, b *listeners.Batch) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.heard = shownBy(b)
	for w := range v.waits {
		// Of the 64 bits of the number, the stream has the lower half.
		if v.heard.passed && uint32(b.Tx.ID) == uint32(w.tx) {
			w.end(b.Position, nil)
		} else {
			w.look(v.heard)
		}
	}
	return nil
}

// look ends a wait if what is shown is behind the commit.
func (w *wait) look(s shown) {
	switch {
	case w.behind == 0 || s.at.Commit < w.behind:
	case s.read:
		w.end(s.at, nil) // the table was read again, after the commit
	case s.passed:
		w.end(s.at, errPassed)
	}
}

func (w *wait) end(at listeners.Position, err error) {
	select {
	case <-w.over:
	default:
		w.at, w.err = at, err
		close(w.over)
	}
}

// expect begins a wait, before the commit.
func (v *watcher) expect(tx uint64) *wait {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := &wait{watch: v, tx: tx, over: make(chan struct{})}
	v.waits[w] = struct{}{}
	return w
}

// behind tells an LSN after the commit. Nothing may come after what was heard
// last, so that is looked at, too.
func (v *watcher) behind(w *wait, lsn uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.behind = lsn
	w.look(v.heard)
}

func (v *watcher) forget(w *wait) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waits, w)
}

// quiet is how often a wait looks whether the mirror has passed the commit with
// nothing to tell: its source has read the table again, and found it as the
// mirror shows it, or a later transaction has changed nothing there.
const quiet = 50 * time.Millisecond

// pass ends a wait if that is so.
func (v *watcher) pass(w *wait) {
	at := v.sub.Stored() // so the batches up to there were looked at
	told := v.region.Told()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case w.behind == 0 || at.Commit < w.behind:
	case told.Commit >= w.behind:
		w.end(at, nil)
	default:
		w.end(at, errPassed)
	}
}

func (v *watcher) await(ctx context.Context, w *wait, timeout <-chan time.Time) (listeners.Position, error) {
	select {
	case <-w.over:
		return w.at, w.err
	default:
	}
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for following := true; following; {
		select {
		case <-w.over:
			return w.at, w.err
		case <-ctx.Done():
			return listeners.Position{}, context.Cause(ctx)
		case <-timeout:
			return listeners.Position{}, errTimeout
		case <-v.sub.Done():
			return listeners.Position{}, v.sub.Reason()
		case <-tick.C:
			v.pass(w)
		case <-v.region.Done():
			following = false
		}
	}
	// The region has shown its last transaction; v may not have heard it yet.
	last, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = v.sub.Wait(last, v.region.Position()) // w says more than its error
	v.pass(w)
	select {
	case <-w.over:
		return w.at, w.err
	default:
	}
	err := v.region.Err()
	if err == nil {
		err = listeners.ErrClosed
	}
	return listeners.Position{}, fmt.Errorf("it follows its source no more: %w", err)
}
