package sinks

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Defaults of a [ServePolicy].
const (
	DefaultMaxAttempts  = 10
	DefaultFirstDelay   = time.Second
	DefaultMaxDelay     = 5 * time.Minute
	DefaultConcurrency  = 16
	DefaultLease        = 30 * time.Second
	DefaultDrainTimeout = 30 * time.Second
)

// A ServePolicy says how a queue is served. Nil and zero mean the defaults. All
// workers of a queue should have the same.
type ServePolicy struct {
	// MaxAttempts is how often a command is begun before it becomes a dead
	// letter. Default [DefaultMaxAttempts].
	MaxAttempts int
	// The delay before attempt n+1 is FirstDelay times 2^(n-1), at most
	// MaxDelay, and then varied by up to a quarter in both directions, so that
	// what failed together does not come back together. Defaults
	// [DefaultFirstDelay] and [DefaultMaxDelay].
	FirstDelay time.Duration
	MaxDelay   time.Duration
	// Concurrency is how many commands run at the same time in this call of
	// Serve. Default [DefaultConcurrency].
	Concurrency int
	// Lease is how long a command belongs to its worker without a sign of
	// life; a sign is sent every third of it while the handler runs. After a worker has
	// died, another gets the command when the lease is over. At least a
	// second. Default [DefaultLease].
	Lease time.Duration
	// DrainTimeout is how long running commands may take after ctx has ended.
	// Then their contexts end, too. Default [DefaultDrainTimeout].
	DrainTimeout time.Duration
	// Inbox remembers which commands were carried out, so that one that is
	// delivered again has no second effect. Default: none.
	Inbox Inbox
}

func (p *ServePolicy) withDefaults() (ServePolicy, error) {
	var o ServePolicy
	if p != nil {
		o = *p
	}
	setDefault(&o.MaxAttempts, DefaultMaxAttempts)
	setDefault(&o.FirstDelay, DefaultFirstDelay)
	setDefault(&o.MaxDelay, max(DefaultMaxDelay, o.FirstDelay))
	setDefault(&o.Concurrency, DefaultConcurrency)
	setDefault(&o.Lease, DefaultLease)
	setDefault(&o.DrainTimeout, DefaultDrainTimeout)
	var faults []error
	if o.MaxAttempts < 1 || o.Concurrency < 1 {
		faults = append(faults, fmt.Errorf("MaxAttempts %d and Concurrency %d must not be negative", o.MaxAttempts, o.Concurrency))
	}
	if o.FirstDelay < 0 || o.MaxDelay < o.FirstDelay {
		faults = append(faults, fmt.Errorf("MaxDelay %s must not be less than FirstDelay %s, nor that negative", o.MaxDelay, o.FirstDelay))
	}
	if o.Lease < time.Second {
		faults = append(faults, fmt.Errorf("the lease %s is less than a second", o.Lease))
	}
	if o.DrainTimeout < 0 {
		faults = append(faults, fmt.Errorf("DrainTimeout %s is negative", o.DrainTimeout))
	}
	return o, errors.Join(faults...)
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// delay is the pause after attempt n, n >= 1.
func (p *ServePolicy) delay(n int) time.Duration { return backoff(p.FirstDelay, p.MaxDelay, n) }

// backoff returns first*2^(n-1), at most most, varied by up to a quarter.
func backoff(first, most time.Duration, n int) time.Duration {
	d := min(float64(first)*math.Pow(2, float64(n-1)), float64(most))
	return time.Duration(d * (0.75 + rand.Float64()/2))
}
