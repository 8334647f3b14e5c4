package listeners

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// What a [RetryPolicy] that does not say otherwise does.
const (
	DefaultAttempts   = 5
	DefaultRetryDelay = 100 * time.Millisecond
	DefaultRetryMax   = 30 * time.Second
	DefaultMultiplier = 2
	DefaultJitter     = 0.2
	DefaultParkMax    = 1000
	DefaultParkBytes  = 16 << 20
)

// A RetryPolicy says what happens when a listener returns an error or panics.
// Nil means that this ends the subscription; zero fields mean their defaults.
//
// The batch is handed over again after a delay, and nothing else meanwhile (with
// Workers: nothing else of that worker). The delay ends early with Close, whose
// error is none; with the end of the feed, after which the subscription reports
// the listener's error; and with Pause: then the next attempt is made at once
// when the subscription is resumed. Errors of a [Durable]'s Flush, of a Filter
// and of the source are not retried here.
type RetryPolicy struct {
	// Attempts is how often a batch is handed over in all. Default
	// [DefaultAttempts].
	Attempts int
	// Delay is the time before the second attempt. Default [DefaultRetryDelay].
	Delay time.Duration
	// Multiplier makes each further delay longer, at least 1. Default
	// [DefaultMultiplier].
	Multiplier float64
	// MaxDelay bounds the delay. Default [DefaultRetryMax].
	MaxDelay time.Duration
	// Jitter is the part of a delay that is left to chance, 0 to 1: with 0.2 it
	// takes between 80 and 100 %. Default [DefaultJitter]; negative is none.
	Jitter float64
	// Retryable, if it is set, is asked after each failure; what it returns
	// false for is not tried again. A panic is a [PanicError]. With Workers it is
	// called by several goroutines. Its own panic is the listener's.
	Retryable func(error) bool

	// Park keeps what still fails in a list, see [Subscription.Parked], and goes
	// on. Default: the subscription ends. A Durable listener cannot have it,
	// since what it stores must be in order.
	//
	// Only Changes are parked for a failure. A Reset, Snapshot or Live that still
	// fails ends the subscription.
	Park bool
	// ParkMax is how many batches may be parked, ParkBytes how many bytes of
	// [Batch.Size]. What finds no room ends the subscription with a
	// [ParkFullError]; nothing is dropped. A batch of any size may be parked
	// where there is none. Default [DefaultParkMax] and [DefaultParkBytes].
	ParkMax   int
	ParkBytes int64
	// ParkReleases says that a parked batch counts as handled: for
	// [Subscription.Stored], for [Subscription.Wait], and so for the source,
	// which may forget it. The list is in memory, so it is lost with the process.
	// Default: Stored stays before the first parked batch, and a source that can
	// (Postgres) keeps everything from there on, and sends it again after a
	// restart.
	ParkReleases bool
	// ParkUnordered hands over what comes after a parked batch even if it is of
	// the same key. Default: it is parked behind, see [Subscription.Parked].
	ParkUnordered bool
}

// check returns what cannot work.
func (p *RetryPolicy) check() error {
	if p == nil {
		return nil
	}
	var faults []error
	if p.Attempts < 0 || p.Delay < 0 || p.MaxDelay < 0 || p.ParkMax < 0 || p.ParkBytes < 0 {
		faults = append(faults, errors.New("retry: Attempts, Delay, MaxDelay, ParkMax and ParkBytes must not be negative"))
	}
	if p.Multiplier != 0 && !(p.Multiplier >= 1) {
		faults = append(faults, fmt.Errorf("retry: a Multiplier of %g makes delays shorter; use 1 or more", p.Multiplier))
	}
	if !(p.Jitter <= 1) {
		faults = append(faults, fmt.Errorf("retry: a Jitter of %g is more than the whole delay", p.Jitter))
	}
	if p.MaxDelay > 0 && p.Delay > p.MaxDelay {
		faults = append(faults, fmt.Errorf("retry: the first delay, %s, is longer than MaxDelay, %s", p.Delay, p.MaxDelay))
	}
	return errors.Join(faults...)
}

func (p *RetryPolicy) withDefaults() *RetryPolicy {
	if p == nil {
		return nil
	}
	q := *p
	q.Attempts = orDefault(q.Attempts, DefaultAttempts)
	q.MaxDelay = orDefault(q.MaxDelay, max(DefaultRetryMax, q.Delay))
	q.Delay = orDefault(q.Delay, min(DefaultRetryDelay, q.MaxDelay))
	q.Multiplier = orDefault(q.Multiplier, DefaultMultiplier)
	q.Jitter = max(0, orDefault(q.Jitter, DefaultJitter))
	q.ParkMax = orDefault(q.ParkMax, DefaultParkMax)
	q.ParkBytes = orDefault(q.ParkBytes, DefaultParkBytes)
	return &q
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// delay returns how long to wait after the n-th failure, counted from 1.
func (p *RetryPolicy) delay(n int) time.Duration {
	d := min(float64(p.Delay)*math.Pow(p.Multiplier, float64(n-1)), float64(p.MaxDelay))
	return time.Duration(d * (1 - p.Jitter*rand.Float64()))
}

// attemptKey marks the context of a callback with the number of its attempt.
type attemptKey struct{}

// Attempt returns how often the batch was handed over, this time included: 1 at
// first, and with any other context.
func Attempt(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}
