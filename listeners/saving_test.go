package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A shelf is a PositionStore in memory that fails when the test says so.
type shelf struct {
	mu     sync.Mutex
	at     map[string]listeners.Position
	inUse  map[string]bool
	saves  []uint64 // commits
	fail   error    // of Save
	broken error    // of Open
}

func newShelf() *shelf {
	return &shelf{at: make(map[string]listeners.Position), inUse: make(map[string]bool)}
}

func (s *shelf) Open(_ context.Context, name string) (listeners.PositionKeeper, listeners.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
		return nil, listeners.Position{}, s.broken
	case s.inUse[name]:
		return nil, listeners.Position{}, listeners.ErrNameTaken
	}
	s.inUse[name] = true
	return &onShelf{s, name}, s.at[name], nil
}

func (s *shelf) set(fail error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *shelf) saved() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.saves)
}

type onShelf struct {
	*shelf
	name string
}

func (k *onShelf) Save(_ context.Context, p listeners.Position) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil {
		k.at[k.name] = p
		k.saves = append(k.saves, p.Commit)
	}
	return k.fail
}

func (k *onShelf) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inUse[k.name] = false
	return nil
}

func durably(s listeners.PositionStore) *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{Positions: s, SaveInterval: time.Second}
}

func wantSaved(t *testing.T, s *shelf, want ...uint64) {
	t.Helper()
	synctest.Wait()
	if got := s.saved(); !slices.Equal(got, want) {
		t.Errorf("saved the commits %d, want %d", got, want)
	}
}

func TestPositionIsSavedAtMostOncePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		sub := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		wantSaved(t, s)
		put(t, f, 1)
		wantSaved(t, s, 1)
		put(t, f, 2, 3, 4)
		wantSaved(t, s, 1)
		if sub.Stored() != at(1) || sub.Handled() != at(4) {
			t.Errorf("Stored() = %s, Handled() = %s; want 1, which is saved, and 4", sub.Stored(), sub.Handled())
		}
		if err := sub.Wait(t.Context(), at(4)); err != nil {
			t.Errorf("Wait = %v although 4 is handled", err)
		}
		time.Sleep(time.Second)
		wantSaved(t, s, 1, 4)
		wantStored(t, sub, 4)
		time.Sleep(time.Hour)
		wantSaved(t, s, 1, 4) // nothing is new
		put(t, f, 5)
		wantSaved(t, s, 1, 4, 5)
		put(t, f, 6)
		synctest.Wait()
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantSaved(t, s, 1, 4, 5, 6)
		if saved, err := sub.Saved(); saved != at(6) || err != nil {
			t.Errorf("Saved() = %s, %v; want 6", saved, err)
		}
	})
}

// A name goes on where its last subscription was, by a store of files.
func TestNameGoesOnWhereItWas(t *testing.T) {
	for name, store := range map[string]listeners.PositionStore{"memory": newShelf(), "files": listeners.NewFilePositions(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 100})
				put(t, f, 1)
				for _, step := range []struct {
					commits []uint64
					want    string
				}{
					{[]uint64{2, 3}, "2:(s2), 3:(s3)"},
					{[]uint64{5}, "4:(s4), 5:(s5)"},
					{nil, "6:(s6)"},
					{nil, "7:(s7)"},
				} {
					var rec listenertest.Recorder
					opts := durably(store)
					opts.From = at(1) // stands back behind what is stored
					sub := subscribe(t, f, "s", &rec, opts, nil)
					synctest.Wait()
					put(t, f, step.commits...)
					time.Sleep(time.Minute)
					wantHeard(t, &rec, step.want)
					if err := sub.CloseWait(t.Context()); err != nil || sub.Err() != nil {
						t.Fatalf("CloseWait = %v, Err() = %v", err, sub.Err())
					}
					put(t, f, sub.Stored().Commit+1)
				}
			})
		})
	}
}

func TestNameInUseIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store := listeners.NewFilePositions(dir)
		f := listeners.NewFeed(nil)
		first := subscribe(t, f, "mails/daily", new(listenertest.Recorder), durably(store), nil)
		synctest.Wait()
		other := subscribe(t, f, "mails/weekly", new(listenertest.Recorder), durably(store), nil)
		same := subscribe(t, f, "mails/daily", new(listenertest.Recorder), durably(store), nil)
		elsewhere := subscribe(t, f, "mails/daily", new(listenertest.Recorder), durably(listeners.NewFilePositions(dir)), nil)
		synctest.Wait()
		for _, sub := range []*listeners.Subscription{same, elsewhere} {
			if err := sub.Err(); !errors.Is(err, listeners.ErrNameTaken) {
				t.Errorf("Err() of a second subscription = %v, want ErrNameTaken", err)
			}
		}
		if ended(first) || ended(other) {
			t.Error("the first subscription, or one of another name, has ended")
		}
		if err := first.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := subscribe(t, f, "mails/daily", new(listenertest.Recorder), durably(store), nil)
		synctest.Wait()
		if ended(again) {
			t.Errorf("after the first was closed, the name is still in use: %v", again.Err())
		}
	})
}

func TestNameTakenOverEndsTheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		sub := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		put(t, f, 1)
		wantSaved(t, s, 1)
		s.set(fmt.Errorf("revision 7: %w", listeners.ErrNameTaken))
		put(t, f, 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !ended(sub) || !errors.Is(sub.Err(), listeners.ErrNameTaken) {
			t.Errorf("ended = %t, Err() = %v; want an end with ErrNameTaken", ended(sub), sub.Err())
		}
	})
}

func TestSaveIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		full := errors.New("disk full")
		s.set(full)
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, durably(s), nil)
		put(t, f, 1, 2)
		time.Sleep(10 * time.Second)
		wantHeard(t, &rec, "1:(s1), 2:(s2)") // the listener does not suffer
		if saved, err := sub.Saved(); !saved.IsZero() || !errors.Is(err, full) || !sub.Stored().IsZero() {
			t.Errorf("Saved() = %s, %v, Stored() = %s; want nothing stored, and why", saved, err, sub.Stored())
		}
		s.set(nil)
		time.Sleep(time.Second)
		wantSaved(t, s, 2)
		if _, err := sub.Saved(); err != nil {
			t.Errorf("Saved() = %v after it worked", err)
		}
		put(t, f, 3)
		synctest.Wait()
		s.set(full)
		put(t, f, 4)
		synctest.Wait()
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := sub.Err(); !errors.Is(err, full) {
			t.Errorf("Err() = %v after the last position could not be stored, want why", err)
		}
	})
}

// So it is, also at the end, if parked batches hold back what came since.
func TestSaveIsTriedAgainBeforeParkedBatches(t *testing.T) {
	for name, tc := range map[string]struct {
		sick []uint64
		wait time.Duration
	}{
		"reached by a retry": {[]uint64{2, 4}, time.Minute}, "at the end": {[]uint64{2, 4}, 0}, "reached at once": {[]uint64{4}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s, l := listeners.NewFeed(nil), newShelf(), newSick(tc.sick...)
				opts := parks(listeners.RetryPolicy{})
				opts.Positions, opts.SaveInterval = s, time.Second
				sub := subscribe(t, f, "s", l, opts, nil)
				for commit := uint64(1); commit <= 4; commit++ {
					time.Sleep(time.Minute)
					synctest.Wait()
					if commit == 3 {
						s.set(errOut)
					}
					put(t, f, commit)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				want := uint64(3)
				if len(tc.sick) > 1 {
					want, l.commits = 2, map[uint64]bool{4: true}
					if err := sub.RetryParked(t.Context(), 1); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Minute)
				}
				s.set(nil)
				time.Sleep(tc.wait)
				if tc.wait == 0 {
					sub.Close()
					<-sub.Done()
				}
				synctest.Wait()
				if got := s.saved(); got[len(got)-1] != want {
					t.Errorf("saved the commits %d, want %d at last", got, want)
				}
			})
		})
	}
}

func TestStoreThatCannotBeReadEndsTheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		s.broken = errors.New("unreachable")
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, durably(s), nil)
		put(t, f, 1)
		wantHeard(t, &rec, "")
		if err := sub.Err(); !ended(sub) || !errors.Is(err, s.broken) {
			t.Errorf("ended = %t, Err() = %v; want the store's error", ended(sub), err)
		}
		if got := sub.Stored(); !got.IsZero() {
			t.Errorf("Stored() = %s, want nothing: what it would have gone on from is not known", got)
		}
	})
}

// Only the end of a transaction or of a snapshot is a position to go on from.
func TestOnlyWholeTransactionsAndSnapshotsAreSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		sub := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		for _, step := range []struct {
			b    *listeners.Batch
			want []uint64
		}{
			{marker(listeners.Reset, 1), nil},
			{marker(listeners.Snapshot, 2), nil},
			{marker(listeners.Live, 3), []uint64{3}},
			{part(4, 1, true, false), []uint64{3}},
			{part(4, 2, false, false), []uint64{3}},
			{part(5, 3, false, true), []uint64{3, 5}},
			{marker(listeners.Snapshot, 6), []uint64{3, 5, 6}}, // rows read again, without a reset
			{marker(listeners.Reset, 7), []uint64{3, 5, 6}},
			{batch(8), []uint64{3, 5, 6}}, // of what is not concerned
			{marker(listeners.Live, 9), []uint64{3, 5, 6, 9}},
		} {
			f.Append(step.b)
			time.Sleep(time.Minute)
			wantSaved(t, s, step.want...)
		}
		f.Append(part(10, 1, true, false))
		synctest.Wait()
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantSaved(t, s, 3, 5, 6, 9)
	})
}

// For a Durable listener handled is stored, and it need not ever be up to date.
func TestOnlyWhatADurableStoredIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s, l := listeners.NewFeed(nil), newShelf(), newStore()
		sub := subscribe(t, f, "s", l, durably(s), nil)
		put(t, f, 1)
		time.Sleep(10 * time.Second) // 1 waits for the listener, then the newest one there is
		put(t, f, 2, 3)
		time.Sleep(10 * time.Second)
		wantSaved(t, s)
		put(t, f, 4)
		l.store(at(3))
		time.Sleep(3 * time.Second)
		wantSaved(t, s, 1)
		put(t, f, 5)
		l.store(at(4))
		time.Sleep(3 * time.Second)
		wantSaved(t, s, 1, 4)
		f.Close() // which flushes
		<-sub.Done()
		wantSaved(t, s, 1, 4, 5)
	})
}

// A region that was rebuilt: its positions are of another epoch.
func TestNameOfAnEpochThatIsOverBeginsWithAReset(t *testing.T) {
	for name, epoch := range map[string]uint64{"an older one": 0, "a newer one": 9} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := listeners.NewFeed(nil), newShelf()
				s.at["s"] = listeners.Position{Epoch: epoch, Commit: 7}
				put(t, f, 1)
				var rec listenertest.Recorder
				sub := subscribe(t, f, "s", &rec, durably(s), tells(1))
				wantHeard(t, &rec, "reset 1:(), snapshot 1:(), live 1:()")
				wantSaved(t, s, 0, 1) // first, what is gone is taken back
				put(t, f, 2)
				time.Sleep(time.Second)
				wantSaved(t, s, 0, 1, 2)
				wantStored(t, sub, 2)
			})
		})
	}
}

// A process that dies between two saves hears the rest again, and nothing is
// missing. After an orderly end it hears nothing twice.
func TestRestartedNameHearsAllOnceOrAgain(t *testing.T) {
	played, again := 0, 0
	seedtest.Play(t, 40, func(t *testing.T, seed uint64) {
		played++
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			f, s := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 1 << 20}), newShelf()
			put(t, f, 1)
			s.at["s"] = at(1)
			next := uint64(2)
			times := map[uint64]int{}
			for range 12 {
				var mu sync.Mutex
				l := listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
					mu.Lock()
					defer mu.Unlock()
					times[b.Position.Commit]++
					return nil
				})
				sub := subscribe(t, f, "s", l, durably(s), nil)
				for range r.IntN(30) {
					put(t, f, next)
					next++
					time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
				}
				dies := r.IntN(2) == 0
				s.mu.Lock()
				before := s.at["s"]
				s.mu.Unlock()
				synctest.Wait()
				if err := sub.CloseWait(t.Context()); err != nil {
					t.Fatal(err)
				}
				if dies {
					s.at["s"] = before // as if the last save had not been
				}
			}
			sub := subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
				times[b.Position.Commit]++
				return nil
			}), durably(s), nil)
			synctest.Wait()
			if err := sub.CloseWait(t.Context()); err != nil {
				t.Fatal(err)
			}
			for commit := uint64(2); commit < next; commit++ {
				switch {
				case times[commit] == 0:
					t.Errorf("commit %d was never heard", commit)
				case times[commit] > 1:
					again++
				}
			}
		})
	})
	if played >= 40 && again == 0 {
		t.Error("nothing was heard again, so that no process died")
	}
}
