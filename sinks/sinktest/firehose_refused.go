package sinktest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func firehoseFenced(r *rig) {
	if r.server.Unfenced {
		r.Skip("nothing keeps two writers apart")
	}
	batches := History(r.random(), 600)
	half := len(batches) / 2
	for len(batches[half].Events) == 0 { // the younger one must store something
		half++
	}
	// One that has lost an answer takes what the younger has stored for its own, rightly:
	// it is the same.
	older := r.open(FirehoseSetup{Patient: true}).Firehose
	r.store(older, batches[:half])
	grace := time.NewTimer(r.server.Grace)
	<-grace.C
	younger := r.open(FirehoseSetup{Patient: true}).Firehose
	r.store(younger, batches[:half+1])

	// The older one stores nothing any more, not even what the other one has.
	rest := slices.Concat(batches[half:], []*listeners.Batch{Transaction(1<<40, 3)})
	err := Feed(r.Context(), older, rest)
	if err == nil {
		err = older.Flush(r.Context())
	}
	e := as[*sinks.FencedError](r, "the older writer", err)
	if e.Place == "" || !strings.Contains(err.Error(), "another writer is on "+e.Place) {
		r.Errorf("FencedError = %v, want words about another writer, and where", e)
	}
	if again := older.OnBatch(r.Context(), batches[0]); !errors.Is(again, e) {
		r.Errorf("OnBatch after the fence = %v, want the same error", again)
	}
	r.store(younger, batches[half+1:])
	r.verify(batches)
}

func firehoseForeign(r *rig) {
	r.store(r.open(FirehoseSetup{}).Firehose, []*listeners.Batch{Transaction(9, 1)})

	old := Transaction(1000, 1)
	old.Position.Epoch, old.Events[0].Position.Epoch = Epoch-1, Epoch-1
	old.Events[0].After = Transaction(9, 1).Events[0].After // in the lane that holds something
	err := r.open(FirehoseSetup{}).Firehose.OnBatch(r.Context(), old)
	if e := as[*sinks.EpochError](r, "OnBatch of an older epoch", err); e.Place == "" || e.Got != old.Position || e.Tail != At(9, 0) {
		r.Errorf("EpochError = %+v, want where, %s and %s", e, At(9, 0), old.Position)
	}

	for name, schema := range map[string]*listeners.Schema{
		"database": listeners.NewSchema("bank", "public", "seats", Seats.Columns),
		"region":   listeners.NewSchema(Database, "", "seats", Seats.Columns),
	} {
		b := Transaction(1001, 1)
		b.Events[0].Schema = schema
		if err := r.open(FirehoseSetup{}).Firehose.OnBatch(r.Context(), b); err == nil || !strings.Contains(err.Error(), "does not belong") {
			r.Errorf("OnBatch of another %s = %v, want that it does not belong", name, err)
		}
	}
	reset := Reset(1002)
	reset.Source = "bank"
	if err := r.open(FirehoseSetup{}).Firehose.OnBatch(r.Context(), reset); err == nil || !strings.Contains(err.Error(), `source "bank"`) {
		r.Errorf("OnBatch of another database's reset = %v, want that it does not belong", err)
	}
	r.verify([]*listeners.Batch{Transaction(9, 1)})
}

func firehoseLifecycle(r *rig) {
	f := r.connect(FirehoseSetup{Patient: true}).Firehose
	if err := f.OnBatch(r.Context(), Transaction(1, 1)); err == nil {
		r.Error("OnBatch before Open = nil, want an error")
	}
	if err := f.Flush(r.Context()); err == nil {
		r.Error("Flush before Open = nil, want an error")
	}
	f.Close() // does nothing
	if err := f.Open(r.Context()); err != nil {
		r.Fatalf("Open: %v", err)
	}
	if err := f.Open(r.Context()); err == nil {
		r.Error("the second Open = nil, want an error")
	}
	r.store(f, []*listeners.Batch{Transaction(1, 1)})
	f.Close()
	f.Close()
	for what, err := range map[string]error{
		"OnBatch": f.OnBatch(r.Context(), Transaction(2, 1)),
		"Flush":   f.Flush(r.Context()),
	} {
		if !errors.Is(err, listeners.ErrClosed) {
			r.Errorf("%s after Close = %v, want ErrClosed", what, err)
		}
	}
	if got := f.Stored(); got != At(1, 0) {
		r.Errorf("Stored after Close = %s, want %s", got, At(1, 0))
	}
}
