package sinktest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func firehoseFull(r *rig) {
	batches := History(r.random(), 800)
	f := r.open(FirehoseSetup{Narrow: true}).Firehose
	half := len(batches) / 2
	r.store(f, batches[:half])
	release := r.server.Fill(r.TB)
	fed := make(chan error, 1)
	ctx, cancel := r.patient()
	defer cancel()
	go func() {
		err := Feed(ctx, f, batches[half:])
		if err == nil {
			err = f.Flush(ctx)
		}
		fed <- err
	}()
	full := time.NewTimer(500 * time.Millisecond)
	select {
	case err := <-fed:
		r.Fatalf("storing with a full broker ends with %v, want that it waits", err)
	case <-full.C:
	}
	r.holds(batches, f.Stored())
	if last := batches[len(batches)-1].Position; f.Stored().Compare(last) >= 0 {
		r.Errorf("Stored with a full broker = %s, want less than %s", f.Stored(), last)
	}
	release()
	if err := <-fed; err != nil {
		r.Fatalf("storing after there was room again: %v", err)
	}
	r.verify(batches)
}

func firehoseStopped(r *rig) {
	batches := History(r.random(), 800)
	half := len(batches) / 2
	f := r.open(FirehoseSetup{Narrow: true}).Firehose
	r.store(f, batches[:half])
	release := r.server.Fill(r.TB)
	ctx, cancel := context.WithTimeout(r.Context(), 300*time.Millisecond)
	defer cancel()
	err := Feed(ctx, f, batches[half:])
	if err == nil {
		err = f.Flush(ctx)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		r.Errorf("a stop in mid-flight = %v, want the context's error", err)
	}
	said := f.Stored()
	f.Close()
	r.holds(batches, said)
	release()
	r.store(r.open(FirehoseSetup{}).Firehose, batches)
	r.verify(batches)
}

// large is a history whose middle has a message that is too large.
func large(r *rig) (batches []*listeners.Batch, at int) {
	all := Transaction(2, 3)
	all.Events[1].After = Wide(4711, r.server.MaxMessage)
	return []*listeners.Batch{Transaction(1, 5), all, Transaction(3, 5)}, 1
}

func firehoseTooLarge(r *rig) {
	batches, at := large(r)
	f := r.open(FirehoseSetup{}).Firehose
	r.store(f, batches[:at])
	err := Feed(r.Context(), f, batches[at:])
	if err == nil {
		err = f.Flush(r.Context())
	}
	e := as[*sinks.TooLargeError](r, "storing what is too large", err)
	want := batches[at].Events[1]
	if e.Collection != "public.seats" || e.Key != "4711" || e.Op != want.Op || e.Position != want.Position || e.Limit == 0 || e.Remedy == "" {
		r.Errorf("TooLargeError = %+v, want one that names public.seats 4711 at %s", e, want.Position)
	}
	if again := f.OnBatch(r.Context(), batches[at+1]); !errors.Is(again, e) {
		r.Errorf("the next OnBatch = %v, want the same error", again)
	}
	if s := f.Stats(); s.LastError == nil {
		r.Error("Stats.LastError = nil, want the error")
	}
	f.Close()
	r.holds(append(slices.Clone(batches[:at]), Parts(batches[at], 1)[0]), batches[at-1].Position)
}

func firehoseParked(r *rig) {
	batches, _ := large(r)
	for range 2 { // the second one finds everything there
		f := r.open(FirehoseSetup{TooLarge: sinks.TooLargePark}).Firehose
		r.store(f, batches)
		s := f.Stats()
		if s.Parked+s.Skipped == 0 || s.Parked > 1+s.Retries {
			r.Errorf("Stats = %+v, want one message parked, or all skipped", s)
		}
		f.Close()
	}
	r.verify(batches)
	if !r.server.Unfenced {
		// A listener in another process notices nothing.
		ctx, cancel := r.patient()
		defer cancel()
		var got heard
		if err := r.connect(FirehoseSetup{}).Firehose.Read(ctx, sinks.Start{Oldest: true}, &got, &sinks.SourceOptions{UntilTip: true}); err != nil {
			r.Errorf("Read = %v, want nil", err)
		}
		if !slices.Equal(got.all(), told(batches...)) {
			r.Errorf("Read gives %d events, want %d with whole bodies", len(got.all()), len(told(batches...)))
		}
	}
	if _, err := r.server.Unpark(r.Context(), "nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		r.Errorf("Unpark(nonsense) = %v, want an error that names it", err)
	}
}
