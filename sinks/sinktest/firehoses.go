package sinktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// Firehoses tests the [sinks.Firehose] of a broker: each test starts a server of
// its own.
func Firehoses(t *testing.T, start func(t testing.TB) FirehoseServer) {
	for _, tc := range []struct {
		name string
		run  func(r *rig)
	}{
		{"ordered and complete", firehoseOrdered},
		{"a restart stores nothing twice", firehoseRestarted},
		{"transactions in parts", firehoseParts},
		{"batches without messages count as stored", firehoseEmpty},
		{"Stored never runs ahead of what is stored", firehoseStored},
		{"a whole subscription", firehoseSubscription},
		{"what is stored can be read", firehoseRead},
		{"processes killed in the middle of a batch", firehoseKilled},
		{"connections cut", firehoseCut},
		{"acknowledgements lost", firehoseLostAcks},
		{"broker restarted", firehoseBrokerRestarted},
		{"random faults", firehoseRandomFaults},
		{"a full broker is waited for", firehoseFull},
		{"stopped in mid-flight", firehoseStopped},
		{"too large is named", firehoseTooLarge},
		{"too large is parked", firehoseParked},
		{"the older of two writers is fenced", firehoseFenced},
		{"events that do not belong are refused", firehoseForeign},
		{"lifecycle", firehoseLifecycle},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(&rig{TB: t, server: start(t)}) })
	}
	t.Run("misfits", func(t *testing.T) {
		for name, misfit := range start(t).Misfits {
			t.Run(name, func(t *testing.T) { firehoseMisfit(&rig{TB: t, server: start(t)}, name, misfit.Want) })
		}
	})
}

// A rig is what a test of firehoses works with.
type rig struct {
	testing.TB
	server FirehoseServer
}

// faults returns how many faults a test injects.
func (r *rig) faults() int {
	r.Helper()
	v := os.Getenv("ROWCALL_FIREHOSE_FAULTS")
	switch {
	case v != "":
	case r.server.Faults > 0:
		return r.server.Faults
	default:
		return 20
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		r.Fatalf("ROWCALL_FIREHOSE_FAULTS=%q is no number of faults", v)
	}
	return n
}

// random returns a source that differs from run to run, unless
// ROWCALL_TEST_SEED says which.
func (r *rig) random() *rand.Rand {
	r.Helper()
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("ROWCALL_TEST_SEED"), 10, 64); err == nil {
		seed = v
	}
	r.Cleanup(func() {
		if r.Failed() {
			r.Logf("again with ROWCALL_TEST_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func (r *rig) connect(o FirehoseSetup) *FirehoseClient {
	r.Helper()
	c := r.server.Connect(r.TB, o)
	r.Cleanup(c.Firehose.Close)
	return c
}

// open returns a client whose firehose is open. Open tries once, and a machine that
// is busy may keep an answer longer than it waits.
func (r *rig) open(o FirehoseSetup) *FirehoseClient {
	r.Helper()
	ctx, cancel := r.patient()
	defer cancel()
	for {
		c := r.connect(o)
		err := c.Firehose.Open(ctx)
		if err == nil {
			return c
		}
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			r.Fatalf("Open: %v", err)
		}
	}
}

// patient bounds what should not take for ever.
func (r *rig) patient() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(r.Context(), firehosePatience, fmt.Errorf("not within %s", firehosePatience))
}

// firehosePatience is for tests that inject many faults, on machines that are
// slow.
const firehosePatience = 3 * time.Minute

// store feeds batches and waits until they are stored.
func (r *rig) store(f *sinks.Firehose, batches []*listeners.Batch) {
	r.Helper()
	ctx, cancel := r.patient()
	defer cancel()
	if err := Feed(ctx, f, batches); err != nil {
		r.Fatal(err)
	}
	if err := f.Flush(ctx); err != nil {
		r.Fatalf("Flush: %v", err)
	}
	if last := batches[len(batches)-1].Position; f.Stored().Compare(last) < 0 {
		r.Errorf("Stored after a flush = %s, want %s at least", f.Stored(), last)
	}
}

// verify checks that just these batches are stored.
func (r *rig) verify(batches []*listeners.Batch) {
	r.Helper()
	if diff := cmp.Diff(Frames(batches, r.server.Lanes), r.server.Contents(r.TB)); diff != "" {
		if len(diff) > 3000 {
			diff = diff[:3000] + "…"
		}
		r.Errorf("what is stored differs from the history (-want +got):\n%s", diff)
	}
}

// holds checks that what is stored is as much as a position says, in order, and
// no more than the batches.
func (r *rig) holds(batches []*listeners.Batch, stored listeners.Position) {
	r.Helper()
	var upTo []*listeners.Batch
	for _, b := range batches {
		if b.Position.Compare(stored) <= 0 {
			upTo = append(upTo, b)
		}
	}
	least, most := Frames(upTo, r.server.Lanes), Frames(batches, r.server.Lanes)
	for lane, got := range r.server.Contents(r.TB) {
		if len(got) < len(least[lane]) {
			r.Errorf("Stored = %s, but of %d messages of lane %d only %d are there", stored, len(least[lane]), lane, len(got))
		}
		if len(got) > len(most[lane]) {
			r.Fatalf("lane %d holds %d messages, of %d that there are", lane, len(got), len(most[lane]))
		}
		if want := most[lane][:len(got)]; !slices.Equal(want, got) {
			r.Errorf("lane %d (-want +got):\n%.3000s", lane, cmp.Diff(want, got))
		}
	}
}

func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(firehosePatience)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.Fatalf("not within %s: %s", firehosePatience, what)
		}
	}
}

// as checks an error's type.
func as[T error](r *rig, what string, err error) (e T) {
	r.Helper()
	if !errors.As(err, &e) {
		r.Fatalf("%s = %v, want a %T", what, err, e)
	}
	return e
}

func firehoseMisfit(r *rig, name, want string) {
	r.server.Misfits[name].Make(r.TB)
	err := r.connect(FirehoseSetup{Patient: true}).Firehose.Open(r.Context())
	if e := as[*sinks.PlaceError](r, "Open", err); e.Place == "" || !strings.Contains(err.Error(), want) {
		r.Errorf("Open = %v, want an error with %q", err, want)
	}
}
