package listeners_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func from(p listeners.Position) *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{From: p}
}

// tells is a join that tells a state without rows at a commit.
func tells(commit uint64) listeners.Join {
	return func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
		for _, kind := range []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live} {
			if err := emit(marker(kind, commit)); err != nil {
				return listeners.Position{}, err
			}
		}
		return at(commit), nil
	}
}

func TestFromAPositionWithoutAGapOrATwin(t *testing.T) {
	const told = "reset 5:(), snapshot 5:(), live 5:(), "
	for name, tc := range map[string]struct {
		history int64
		from    uint64
		want    string // up to the 5 that are appended before, then 6 and 7
		oldest  uint64
	}{
		"in the history":          {history: 3, from: 3, want: "4:(s4), 5:(s5), "},
		"at the edge of it":       {history: 3, from: 2, want: "3:(s3), 4:(s4), 5:(s5), "},
		"behind the edge":         {history: 3, from: 1, want: told, oldest: 2},
		"up to date":              {history: 3, from: 5, want: ""},
		"up to date, no history":  {from: 5, want: ""},
		"no history":              {from: 4, want: told, oldest: 5},
		"ahead of the source":     {history: 3, from: 6, want: told, oldest: 2},
		"all of it, from the 1st": {history: 9, from: 1, want: "2:(s2), 3:(s3), 4:(s4), 5:(s5), "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: tc.history})
				put(t, f, 1, 2, 3, 4, 5)
				var with, without listenertest.Recorder
				current := subscribe(t, f, "with Current", &with, from(at(tc.from)), tells(5))
				bare := subscribe(t, f, "without", &without, from(at(tc.from)), nil)
				synctest.Wait()
				put(t, f, 6, 7)
				wantHeard(t, &with, tc.want+"6:(s6), 7:(s7)")
				if err := current.Err(); err != nil || current.Stored() != at(7) {
					t.Errorf("with Current: Err() = %v, Stored() = %s; want none, 7", err, current.Stored())
				}
				if tc.want != told {
					wantHeard(t, &without, tc.want+"6:(s6), 7:(s7)")
					return
				}
				wantHeard(t, &without, "")
				var gone *listeners.HistoryError
				if err := bare.Err(); !errors.As(err, &gone) || gone.Asked != at(tc.from) || gone.Oldest != at(tc.oldest) || gone.Subscription != "without" {
					t.Errorf("Err() = %v, want a HistoryError from %d, oldest %d", err, tc.from, tc.oldest)
				}
			})
		})
	}
}

func TestFromAnEpochThatIsOverIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 100})
		put(t, f, 1, 2)
		for _, epoch := range []uint64{0, 2} {
			var rec listenertest.Recorder
			subscribe(t, f, "s", &rec, from(listeners.Position{Epoch: epoch, Commit: 1}), tells(2))
			wantHeard(t, &rec, "reset 2:(), snapshot 2:(), live 2:()")
		}
	})
}

func TestFromWithinATransactionBringsItsRest(t *testing.T) {
	for name, tc := range map[string]struct {
		from uint32
		only []string
		want string
	}{
		"at the end of a part":     {from: 1, want: "2.2:s3, 2.3:t4), 3:(s3)"},
		"filtered":                 {from: 1, only: []string{"public.seats"}, want: "2.2:s3, 2.3:), 3:(s3)"},
		"in the middle of a batch": {from: 2, want: "2.3:t4), 3:(s3)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 100})
				put(t, f, 1)
				f.Append(part(2, 1, true, false, created(seats, 1), created(seats, 2)))
				f.Append(part(2, 2, false, false, created(seats, 3)))
				opts := from(listeners.Position{Epoch: 1, Commit: 2, Index: tc.from})
				opts.Collections = tc.only
				var rec listenertest.Recorder
				subscribe(t, f, "s", &rec, opts, nil)
				synctest.Wait()
				f.Append(part(2, 3, false, true, created(trains, 4)))
				put(t, f, 3)
				wantHeard(t, &rec, tc.want)
			})
		})
	}
}

// The parts of a transaction are cut otherwise than when they were heard first.
func TestFromWithinABatchLeavesOutItsEvents(t *testing.T) {
	for _, overflow := range []listeners.Overflow{listeners.OverflowBlock, listeners.OverflowConflate} {
		synctest.Test(t, func(t *testing.T) {
			f := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 100})
			put(t, f, 1)
			b := part(2, 4, true, true, created(seats, 1), created(seats, 2), created(seats, 3), created(seats, 4))
			for i := range b.Events {
				b.Events[i].Position.Index = uint32(i + 1)
			}
			f.Append(b)
			opts := from(listeners.Position{Epoch: 1, Commit: 2, Index: 2})
			opts.Overflow, opts.BacklogBytes = overflow, 6
			slow := newGate()
			sub := subscribe(t, f, "s", slow, opts, nil)
			sub.Pause()
			synctest.Wait()
			for commit := uint64(3); commit < 12; commit++ {
				f.Append(batch(commit, created(seats, 4)))
			}
			sub.Resume()
			close(slow.pass)
			synctest.Wait()
			if err := sub.Err(); err != nil {
				t.Fatalf("policy %s: %v", overflow, err)
			}
			var keys []string
			for _, e := range slow.Events() {
				keys = append(keys, e.Key)
			}
			want := []string{"3", "4", "4", "4", "4", "4", "4", "4", "4", "4", "4"}
			if overflow == listeners.OverflowConflate {
				want = []string{"3", "4"}
				keys = keys[:2] // others may have come after the merge
			}
			if !slices.Equal(keys, want) || slow.Batches()[0].First {
				t.Errorf("policy %s: heard %s, want the 3rd event on, and not as a First", overflow, heard(&slow.Recorder))
			}
		})
	}
}

func TestFeedAsksWhereItBegins(t *testing.T) {
	broken := errors.New("no answer")
	for name, tc := range map[string]struct {
		skip listeners.Position
		err  error
		want string
		fail string
	}{
		"everything comes":  {skip: at(2), want: "3:(s3)"},
		"the state comes":   {want: "1:(s1), 2:(s2), 3:(s3)"},
		"history is gone":   {err: &listeners.HistoryError{Oldest: at(3)}, fail: `subscription "s": its source does not have the history behind ` + at(2).String() + ", the oldest to go on from is " + at(3).String()},
		"nobody can answer": {err: broken, fail: "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known := make(chan struct{})
				f := listeners.NewFeed(&listeners.FeedOptions{Resume: func(_ context.Context, from listeners.Position) (listeners.Position, error) {
					<-known
					if from != at(2) {
						t.Errorf("Resume was asked for %s, want 2", from)
					}
					return tc.skip, tc.err
				}})
				var rec listenertest.Recorder
				sub := subscribe(t, f, "s", &rec, from(at(2)), nil)
				synctest.Wait()
				put(t, f, 1)
				synctest.Wait()
				if got := sub.Stored(); !got.IsZero() {
					t.Errorf("Stored() = %s before the answer, want nothing", got)
				}
				close(known)
				put(t, f, 2, 3)
				wantHeard(t, &rec, tc.want)
				switch err := sub.Err(); {
				case tc.fail == "" && (err != nil || sub.Stored() != at(3)):
					t.Errorf("Err() = %v, Stored() = %s; want none, 3", err, sub.Stored())
				case tc.fail != "" && (err == nil || !strings.Contains(err.Error(), tc.fail)):
					t.Errorf("Err() = %v, want %q in it", err, tc.fail)
				}
			})
		})
	}
}

func TestCloseWhileTheFeedIsAsked(t *testing.T) {
	for name, end := range map[string]func(*listeners.Feed, *listeners.Subscription){
		"the subscription": func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() },
		"the feed":         func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{Resume: func(ctx context.Context, _ listeners.Position) (listeners.Position, error) {
					<-ctx.Done()
					return listeners.Position{}, context.Cause(ctx)
				}})
				sub := subscribe(t, f, "s", new(listenertest.Recorder), from(at(2)), nil)
				synctest.Wait()
				end(f, sub)
				synctest.Wait()
				if !ended(sub) || sub.Err() != nil {
					t.Errorf("ended = %t, Err() = %v; want an end without an error", ended(sub), sub.Err())
				}
			})
		})
	}
}

// Who is far behind in the history is a slow subscription like any other.
func TestWritersWaitForWhoComesFromHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 4, HistoryBytes: 8})
		put(t, f, 1, 2, 3, 4, 5, 6, 7, 8)
		slow := newGate()
		subscribe(t, f, "s", slow, from(at(1)), nil)
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Reserve(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reserve = %v with 7 bytes unheard of at most 4, want it to wait", err)
		}
		close(slow.pass)
		put(t, f, 9)
		wantHeard(t, &slow.Recorder, "2:(s2), 3:(s3), 4:(s4), 5:(s5), 6:(s6), 7:(s7), 8:(s8), 9:(s9)")
	})
}

// Listeners come and go while a writer writes. Each goes on from where it was,
// or is told that it cannot.
func TestResumedAgainAndAgainWithoutAGapOrATwin(t *testing.T) {
	played, resumed, reset := 0, 0, 0
	seedtest.Play(t, 60, func(t *testing.T, seed uint64) {
		played++
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 6, HistoryBytes: int64(r.IntN(20))})
			var history []string
			written := make(chan struct{})
			go func() {
				defer close(written)
				for commit := uint64(1); commit <= 150; commit++ {
					parts := 1 + r.IntN(3)
					for i := 1; i <= parts; i++ {
						b := part(commit, uint32(i), i == 1, i == parts, created(seats, int(commit)))
						history = append(history, b.Position.String())
						if err := f.Reserve(t.Context()); err != nil {
							t.Error(err)
							return
						}
						f.Append(b)
					}
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
				}
			}()
			own := rand.New(rand.NewPCG(seed, 2))
			var got []string
			var last listeners.Position
			for running := true; running; {
				select {
				case <-written:
					running = false
				default:
				}
				lag := time.Duration(own.IntN(3)) * time.Millisecond
				l := listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
					time.Sleep(lag)
					got = append(got, b.Position.String())
					return nil
				})
				var opts *listeners.SubscribeOptions
				if !last.IsZero() {
					opts = from(last)
				}
				sub, err := f.Subscribe("s", l, opts, nil)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(own.IntN(12)) * time.Millisecond)
				if !running {
					synctest.Wait()
					time.Sleep(time.Second)
				}
				if err := sub.CloseWait(t.Context()); err != nil {
					t.Fatal(err)
				}
				var gone *listeners.HistoryError
				switch err := sub.Err(); {
				case errors.As(err, &gone):
					reset++
					got, last = nil, listeners.Position{}
					continue
				case err != nil:
					t.Fatal(err)
				case opts != nil:
					resumed++
				}
				if at := sub.Stored(); !at.IsZero() { // or it was closed before it began
					last = at
				}
				time.Sleep(time.Duration(own.IntN(8)) * time.Millisecond)
			}
			// What was heard since the last loss is a stretch of the history. Who
			// came within a transaction began behind it.
			if len(got) > 0 {
				i := slices.Index(history, got[0])
				if end := min(len(history), i+len(got)); i < 0 || !slices.Equal(history[i:end], got) {
					t.Errorf("heard %v,\nwhich is no stretch of %v", got, history)
				}
			}
		})
	})
	if played >= 60 && (resumed < 100 || reset < 10) {
		t.Errorf("%d were resumed and %d lost their history; the test is not one of both", resumed, reset)
	}
}
