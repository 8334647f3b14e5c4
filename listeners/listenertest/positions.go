package listenertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// patience bounds what a store is waited for.
const patience = 2 * time.Minute

// Positions tests a [listeners.PositionStore] against what its interface says.
// Each call of open returns a new store on one and the same place, as another
// process would have it; the place is empty at first.
func Positions(t *testing.T, open func(t *testing.T) listeners.PositionStore) {
	t.Helper()
	for name, test := range map[string]func(*positions){
		"each name is kept":               eachNameIsKept,
		"the last save counts":            theLastSaveCounts,
		"a name in use is refused":        aNameInUseIsRefused,
		"a name in use elsewhere":         aNameInUseElsewhere,
		"one of many who open at a time":  oneOfMany,
		"who was refused may come again":  whoWasRefusedMayComeAgain,
		"names do not disturb each other": namesAtTheSameTime,
		"a subscription goes on":          aSubscriptionGoesOn,
	} {
		t.Run(name, func(t *testing.T) { test(&positions{t, open}) })
	}
}

type positions struct {
	*testing.T

	open func(t *testing.T) listeners.PositionStore
}

// A position of a commit.
func at(commit uint64) listeners.Position {
	return listeners.Position{Epoch: 1<<63 + 5, Commit: commit, Index: uint32(commit)}
}

// take opens a name that must be free and have this position.
func (p *positions) take(s listeners.PositionStore, name string, want listeners.Position) listeners.PositionKeeper {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	k, found, err := s.Open(ctx, name)
	if err != nil || found != want {
		p.Fatalf("Open(%.40q) = %s, %v; want %s", name, found, err, want)
	}
	return k
}

func (p *positions) save(k listeners.PositionKeeper, commits ...uint64) {
	p.Helper()
	for _, c := range commits {
		if err := k.Save(p.Context(), at(c)); err != nil {
			p.Fatalf("Save(%s) = %v", at(c), err)
		}
	}
}

func (p *positions) leave(k listeners.PositionKeeper) {
	p.Helper()
	if err := k.Close(); err != nil {
		p.Fatalf("Close() = %v", err)
	}
}

func eachNameIsKept(p *positions) {
	long := strings.Repeat("x", 500)
	names := []string{
		"s", "S", "mails/daily", "mails%2Fdaily", "mails-2fdaily", "..", ".", "", "-", "--", "*", ">", "a.b", "ü", "a b", "x.lock", "x",
		long, long + "y", strings.Repeat("/", 300), strings.Repeat("/", 3000), strings.Repeat("/", 3000) + "y",
	}
	for i, name := range names {
		k := p.take(p.open(p.T), name, listeners.Position{})
		p.save(k, uint64(i)+1)
		p.leave(k)
	}
	s := p.open(p.T)
	for i, name := range names {
		p.leave(p.take(s, name, at(uint64(i)+1)))
	}
}

// Which may be one before, as of a database that was restored.
func theLastSaveCounts(p *positions) {
	s := p.open(p.T)
	k := p.take(s, "last", listeners.Position{})
	p.leave(k)
	k = p.take(s, "last", listeners.Position{}) // nothing was saved
	p.save(k, 7, 1000, 3, 3)
	p.leave(k)
	p.leave(p.take(s, "last", at(3)))
	p.leave(p.take(p.open(p.T), "last", at(3))) // who saves nothing leaves it
}

func aNameInUseIsRefused(p *positions) {
	s := p.open(p.T)
	k := p.take(s, "used", listeners.Position{})
	p.save(k, 1)
	p.refused(s, "used", k)
	p.save(k, 2)
	p.leave(k)
	p.leave(p.take(s, "used", at(2)))
}

func aNameInUseElsewhere(p *positions) {
	k := p.take(p.open(p.T), "elsewhere", listeners.Position{})
	p.save(k, 1)
	p.refused(p.open(p.T), "elsewhere", k)
	p.leave(k)
	p.leave(p.take(p.open(p.T), "elsewhere", at(1)))
}

// refused opens a name that k has. One of the two must be refused.
func (p *positions) refused(s listeners.PositionStore, name string, k listeners.PositionKeeper) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	second, _, err := s.Open(ctx, name)
	if err == nil {
		err = k.Save(ctx, at(1))
		p.leave(second)
	}
	if !errors.Is(err, listeners.ErrNameTaken) {
		p.Errorf("Open(%q), which is in use, and then Save of who uses it = %v, want ErrNameTaken", name, err)
	}
}

func oneOfMany(p *positions) {
	const many = 6
	var wg sync.WaitGroup
	keepers, errs := make([]listeners.PositionKeeper, many), make([]error, many)
	for i := range many {
		s := p.open(p.T)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(p.Context(), patience)
			defer cancel()
			keepers[i], _, errs[i] = s.Open(ctx, "many")
		})
	}
	wg.Wait()
	owners := 0
	for i, k := range keepers {
		err := errs[i]
		if err == nil {
			if err = k.Save(p.Context(), at(uint64(i)+1)); err == nil {
				owners++
			}
		}
		if err != nil && !errors.Is(err, listeners.ErrNameTaken) {
			p.Errorf("Open and Save beside others = %v, want success or ErrNameTaken", err)
		}
	}
	if owners != 1 {
		p.Errorf("%d of %d own the name, want one", owners, many)
	}
	for i, k := range keepers {
		if errs[i] == nil {
			p.leave(k)
		}
	}
}

func whoWasRefusedMayComeAgain(p *positions) {
	s := p.open(p.T)
	k := p.take(s, "again", listeners.Position{})
	for range 2 {
		p.refused(s, "again", k)
	}
	p.save(k, 4)
	p.leave(k)
	for range 2 {
		p.leave(p.take(s, "again", at(4)))
	}
}

func namesAtTheSameTime(p *positions) {
	s := p.open(p.T)
	var wg sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprint("name ", i)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(p.Context(), patience)
			defer cancel()
			var want listeners.Position
			for round := range uint64(3) {
				k, found, err := s.Open(ctx, name)
				if err != nil || found != want {
					p.Errorf("Open(%q) = %s, %v; want %s", name, found, err, want)
					return
				}
				for c := range uint64(5) {
					want = at(10*uint64(i) + 5*round + c + 1)
					if err := k.Save(ctx, want); err != nil {
						p.Errorf("Save of %q = %v", name, err)
					}
				}
				if err := k.Close(); err != nil {
					p.Errorf("Close of %q = %v", name, err)
				}
			}
		})
	}
	wg.Wait()
}

// Whenever it is closed, each batch is heard once.
func aSubscriptionGoesOn(p *positions) {
	begin := listeners.Position{Epoch: 1}
	feed := listeners.NewFeed(&listeners.FeedOptions{
		HistoryBytes: 1 << 20,
		Begin:        func(context.Context) (listeners.Position, error) { return begin, nil },
		Resume: func(_ context.Context, from listeners.Position) (listeners.Position, error) {
			return from, nil // all is in the history
		},
	})
	defer feed.Close()
	var heard Recorder
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	commit := uint64(0)
	write := func() {
		commit++
		feed.Append(&listeners.Batch{Position: listeners.Position{Epoch: 1, Commit: commit}, First: true, Last: true, Size: 1})
	}
	for round := range 5 {
		sub, err := feed.Subscribe("goes on", &heard, &listeners.SubscribeOptions{Positions: p.open(p.T), SaveInterval: time.Millisecond}, nil)
		if err != nil {
			p.Fatal(err)
		}
		for range 20 {
			write()
		}
		if err := sub.Wait(ctx, listeners.Position{Epoch: 1, Commit: commit - uint64(round)}); err != nil {
			p.Fatalf("round %d: Wait = %v", round, err)
		}
		if err := sub.CloseWait(ctx); err != nil || sub.Err() != nil {
			p.Fatalf("round %d: CloseWait = %v, Err() = %v", round, err, sub.Err())
		}
		if saved, err := sub.Saved(); saved != sub.Handled() || err != nil {
			p.Errorf("round %d: Saved() = %s, %v; want %s, which is handled", round, saved, err, sub.Handled())
		}
		write() // while nobody listens
	}
	sub, err := feed.Subscribe("goes on", &heard, &listeners.SubscribeOptions{Positions: p.open(p.T)}, nil)
	if err != nil {
		p.Fatal(err)
	}
	if err := errors.Join(sub.Wait(ctx, listeners.Position{Epoch: 1, Commit: commit}), sub.CloseWait(ctx)); err != nil {
		p.Fatal(err)
	}
	for i, b := range heard.Batches() {
		if b.Position.Commit != uint64(i)+1 {
			p.Fatalf("the batch heard as number %d is of commit %d", i+1, b.Position.Commit)
		}
	}
	if n := len(heard.Batches()); n != int(commit) {
		p.Errorf("heard %d of %d batches", n, commit)
	}
}
