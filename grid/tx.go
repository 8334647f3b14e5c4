package grid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// ErrTxOver is why a write failed that came after the function of [Grid.Do]
// had returned.
var ErrTxOver = errors.New("the transaction is over: write only from the function given to Do")

// A Tx is a transaction over the regions of a grid, see [Grid.Do] and [In]. It
// belongs to the goroutine that fn is called on.
type Tx struct {
	grid  *Grid
	tag   string
	parts []txPart // in order of first use
	err   error    // a misuse, which keeps the transaction from committing
	over  bool
	// single says that it is a write of one region, which names itself in errors.
	single bool
}

// A txPart is a [TxRegion] without its types. The methods named Locked want the
// region locked.
type txPart interface {
	name() string
	order() uint64 // regions are locked in this order, or two transactions could wait for each other
	of(region any) bool
	writing() bool
	changing() bool
	reserve(ctx context.Context) error
	lock()
	unlock()
	yield()
	unchangedLocked(at time.Time) bool
	prepareLocked(at time.Time) error
	commitLocked() listeners.Position
	abortLocked()
}

// Do calls fn and commits what it wrote through [In], in all regions or in
// none: in none if fn returns an error, which Do returns as it is, or if it
// panics, and the panic goes on. In each region that changes, the transaction
// is one batch with the net effect on each key, in the order of the keys' last
// writes: a key that is created and deleted again is in none.
//
// Transactions are as if they ran one after another, and single writes between
// them. fn runs under no lock, and nobody waits for it. So, if another writer
// meanwhile changed what fn has read, nothing was written and fn is called
// again, until ctx ends. It must do nothing but read and write through tx: what
// it does besides may happen more than once, and if it writes directly into a
// region what it has read through tx, it always comes too late for itself.
// Reading all of a region that changes often can take many calls.
//
// What fn sees of one region is one state of it, and its own writes. Two
// regions may, within a call, be seen at two moments; then this call does not
// count, whether it returned an error or not.
//
// Do waits for room in the feeds as [Region.Put] does, before it commits. A
// listener may call it, and passes its own context on. The errors are fn's, that of
// a writer ([Grid.AddWriter]), the cause of ctx's end, [ErrClosed], and that a region is of another grid.
func (g *Grid) Do(ctx context.Context, fn func(tx *Tx) error) error {
	if fn == nil {
		return fmt.Errorf("grid %q: the transaction's function is nil", g.name)
	}
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("grid %q: transaction: %w", g.name, context.Cause(ctx))
		}
		tx := &Tx{grid: g, tag: tagOf(ctx)}
		ended, err := tx.finish(ctx, tx.call(fn))
		if ended {
			return err
		}
	}
}

func (tx *Tx) call(fn func(*Tx) error) error {
	defer func() { tx.over = true }() // also when fn panics
	return fn(tx)
}

// finish commits, unless fn has failed. It reports false if something that fn
// read has changed.
func (tx *Tx) finish(ctx context.Context, failure error) (ended bool, err error) {
	if tx.err != nil {
		return true, tx.err
	}
	if failure == nil {
		failure = tx.ask(ctx)
		if failure != nil && !tx.single {
			failure = fmt.Errorf("grid %q: transaction: %w", tx.grid.name, failure)
		}
	}
	if failure == nil {
		// Under no lock yet, so that listeners can make room by whatever they do.
		for _, p := range tx.parts {
			if !p.writing() {
				continue
			}
			if err := p.reserve(ctx); err != nil {
				return true, tx.wrap(p, err)
			}
		}
	}
	slices.SortFunc(tx.parts, func(a, b txPart) int { return cmp.Compare(a.order(), b.order()) })
	for _, p := range tx.parts {
		p.lock()
	}
	defer func() {
		for _, p := range tx.parts {
			p.unlock()
		}
		for _, p := range tx.parts {
			p.yield()
		}
	}()
	at := time.Now()
	for _, p := range tx.parts {
		if !p.unchangedLocked(at) {
			return false, nil
		}
	}
	if failure != nil {
		return true, failure
	}
	return true, tx.commitLocked(at)
}

// commitLocked does first what can fail, then what cannot.
func (tx *Tx) commitLocked(at time.Time) error {
	for i, p := range tx.parts {
		if !p.writing() {
			continue
		}
		if err := p.prepareLocked(at); err != nil {
			for _, q := range tx.parts[:i] {
				q.abortLocked()
			}
			return tx.wrap(p, err)
		}
	}
	for _, p := range tx.parts {
		p.commitLocked()
	}
	return nil
}

func (tx *Tx) wrap(p txPart, err error) error {
	if tx.single {
		return err
	}
	return fmt.Errorf("grid %q: transaction: region %q: %w", tx.grid.name, p.name(), err)
}
