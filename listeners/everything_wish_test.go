package listeners_test

import (
	"time"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/listeners"
)

// A keeperWish is what one subscription asks for, and how its listener behaves.
type keeperWish struct {
	Overflow listeners.Overflow
	Limit    int64
	Current  bool
	Only     int // 1 + collection, 0 for all
	Parity   int // 1 + what ID%2 is of the keys it wants, 0 for all

	Workers  int
	InFlight int64
	Group    *listeners.GroupPolicy
	Retry    *listeners.RetryPolicy

	Resume string // how it goes on after its end: "", "from", "memory" or "file"

	FailPercent int
	Pause       time.Duration
	Seed        uint64
}

// A keeperAct is something that happens to a subscription.
type keeperAct struct {
	Whom int
	What string
	Wait time.Duration
}

type storeHistory struct {
	Feed, History int64
	Wishes        []keeperWish
	Steps         []shopStep
	Acts          []keeperAct
}

func anyStoreHistory() *rapid.Generator[storeHistory] {
	op := rapid.Custom(func(t *rapid.T) shopOp {
		o := shopOp{
			What:       rapid.SampledFrom([]string{"put", "put", "put", "put", "put", "delete", "delete", "rekey", "truncate", "message"}).Draw(t, "what"),
			Collection: rapid.IntRange(0, 1).Draw(t, "collection"), ID: rapid.IntRange(1, 6).Draw(t, "id"), To: rapid.IntRange(1, 6).Draw(t, "to"),
			Whole: rapid.Bool().Draw(t, "whole"), SameNote: rapid.Bool().Draw(t, "same note"),
		}
		if o.What == "rekey" {
			o.SameNote = false // who hears it again cannot know the note of a row that has gone on
		}
		return o
	})
	step := rapid.Custom(func(t *rapid.T) shopStep {
		return shopStep{
			Parts: rapid.SliceOfN(rapid.SliceOfN(op, 1, 4), 1, 3).Draw(t, "parts"),
			Size:  rapid.IntRange(1, 12).Draw(t, "size"),
			Wait:  time.Duration(rapid.IntRange(0, 3).Draw(t, "wait")) * time.Millisecond,
		}
	})
	return rapid.Custom(func(t *rapid.T) storeHistory {
		return storeHistory{
			Feed: rapid.Int64Range(1, 60).Draw(t, "feed"), History: rapid.SampledFrom([]int64{0, 40, 1 << 20}).Draw(t, "history"),
			Wishes: rapid.SliceOfN(anyKeeperWish(), 1, 3).Draw(t, "wishes"),
			Steps:  rapid.SliceOfN(step, 1, 50).Draw(t, "steps"),
			Acts: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) keeperAct {
				return keeperAct{
					Whom: rapid.IntRange(0, 2).Draw(t, "whom"),
					What: rapid.SampledFrom([]string{"pause", "resume", "resume", "restart", "crash", "retry", "retry", "discard"}).Draw(t, "what"),
					Wait: time.Duration(rapid.IntRange(0, 6).Draw(t, "wait")) * time.Millisecond,
				}
			}), 0, 30).Draw(t, "acts"),
		}
	})
}

func anyKeeperWish() *rapid.Generator[keeperWish] {
	return rapid.Custom(func(t *rapid.T) keeperWish {
		w := keeperWish{
			Overflow: rapid.SampledFrom([]listeners.Overflow{
				listeners.OverflowBlock, listeners.OverflowBlock, listeners.OverflowConflate, listeners.OverflowReset, listeners.OverflowDisconnect,
			}).Draw(t, "overflow"),
			Limit: rapid.Int64Range(1, 200).Draw(t, "limit"), Current: rapid.Bool().Draw(t, "current"),
			Only: rapid.IntRange(0, 2).Draw(t, "only"), Parity: rapid.IntRange(0, 2).Draw(t, "parity"),
			Workers: rapid.IntRange(0, 4).Draw(t, "workers"), InFlight: rapid.SampledFrom([]int64{0, 1, 30}).Draw(t, "in flight"),
			Resume:      rapid.SampledFrom([]string{"", "from", "memory", "memory", "file"}).Draw(t, "go on"),
			FailPercent: rapid.SampledFrom([]int{0, 10, 40, 80}).Draw(t, "fail"),
			Pause:       time.Duration(rapid.IntRange(0, 3).Draw(t, "pause")) * time.Millisecond,
			Seed:        rapid.Uint64().Draw(t, "seed"),
		}
		w.Current = w.Current || w.Overflow == listeners.OverflowReset
		if rapid.Bool().Draw(t, "group") {
			w.Group = &listeners.GroupPolicy{
				MaxEvents: rapid.IntRange(1, 10).Draw(t, "group events"), MaxBytes: rapid.Int64Range(1, 60).Draw(t, "group bytes"),
				MaxWait: time.Duration(rapid.IntRange(0, 4).Draw(t, "group wait")) * time.Millisecond,
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "retry") > 0 {
			w.Retry = &listeners.RetryPolicy{
				Attempts: rapid.IntRange(1, 3).Draw(t, "attempts"), Delay: time.Millisecond,
				Park: rapid.IntRange(0, 3).Draw(t, "park") > 0, ParkMax: rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "park max"),
				// A list that is lost with the subscription must hold the position back.
				ParkReleases: w.Resume == "" && rapid.Bool().Draw(t, "releases"),
			}
		}
		return w
	})
}
