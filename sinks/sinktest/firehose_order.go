package sinktest

import (
	"github.com/rowcall/rowcall/listeners"
)

func firehoseOrdered(r *rig) {
	batches := History(r.random(), 3000)
	half := len(batches) / 2
	c := r.open(FirehoseSetup{})
	r.store(c.Firehose, batches[:half])
	narrow := r.open(FirehoseSetup{Narrow: true})
	c.Firehose.Close()
	r.store(narrow.Firehose, batches)
	r.verify(batches)

	want := uint64(0)
	for _, lines := range Frames(batches[:half], r.server.Lanes) {
		want += uint64(len(lines))
	}
	s := c.Firehose.Stats()
	if s.Sent < want || s.Bytes < 10*want || s.InFlight != 0 {
		r.Errorf("Stats = %+v, want %d messages sent", s, want)
	}
	// A broker that is slow to answer is asked again.
	if s.Retries == 0 && (s.Sent != want || s.LastError != nil) {
		r.Errorf("Stats = %+v, want %d messages sent without a fault", s, want)
	}
	if s := narrow.Firehose.Stats(); s.Skipped < want || s.Sent == 0 {
		r.Errorf("Stats of the next one = %+v, want %d messages skipped at least, and others sent", s, want)
	}
	if c.Firehose.Name() == "" || c.Firehose.Where() == "" {
		r.Errorf("Name = %q, Where = %q; want both", c.Firehose.Name(), c.Firehose.Where())
	}
}

func firehoseRestarted(r *rig) {
	batches := History(r.random(), 1000)
	for i := range 4 {
		c := r.open(FirehoseSetup{})
		r.store(c.Firehose, batches[:len(batches)*(i+1)/4])
		c.Firehose.Close()
	}
	c := r.open(FirehoseSetup{})
	r.store(c.Firehose, batches)
	if s := c.Firehose.Stats(); s.Sent != 0 || s.Skipped == 0 {
		r.Errorf("Stats = %+v, want everything skipped", s)
	}
	r.verify(batches)
}

// A crash in the middle of a transaction, between its parts and within one.
func firehoseParts(r *rig) {
	all := Transaction(21, 40)
	parts := Parts(all, 25)
	batches := []*listeners.Batch{Transaction(20, 30), parts[0], parts[1], Transaction(22, 3)}
	for _, n := range []int{10, 25, 30} {
		c := r.open(FirehoseSetup{})
		cut := Parts(all, n)[0]
		r.store(c.Firehose, []*listeners.Batch{batches[0], cut})
		c.Firehose.Close()
	}
	r.store(r.open(FirehoseSetup{}).Firehose, batches)
	r.verify([]*listeners.Batch{batches[0], all, batches[3]})
}

func firehoseEmpty(r *rig) {
	f := r.open(FirehoseSetup{}).Firehose
	r.store(f, []*listeners.Batch{Live(5)})
	r.store(f, []*listeners.Batch{Transaction(10, 3), Transaction(11, 0), Live(12), Live(13)})
	r.store(f, []*listeners.Batch{Live(14)})
	r.verify([]*listeners.Batch{Transaction(10, 3)})
}

func firehoseStored(r *rig) {
	f := r.open(FirehoseSetup{Narrow: true}).Firehose
	if got := f.Stored(); !got.IsZero() {
		r.Errorf("Stored where nothing is = %s, want zero", got)
	}
	batches := History(r.random(), 1500)
	fed := make(chan error, 1)
	ctx, cancel := r.patient()
	defer cancel()
	go func() { fed <- Feed(ctx, f, batches) }()
	var last listeners.Position
	for looking := true; looking; {
		select {
		case err := <-fed:
			if err != nil {
				r.Fatal(err)
			}
			looking = false
		default:
		}
		said := f.Stored()
		if said.Compare(last) < 0 {
			r.Fatalf("Stored went back from %s to %s", last, said)
		}
		last = said
		r.holds(batches, said)
	}
	if err := f.Flush(ctx); err != nil {
		r.Fatalf("Flush: %v", err)
	}
	r.verify(batches)
}

func firehoseSubscription(r *rig) {
	f := r.open(FirehoseSetup{}).Firehose
	source := listeners.NewFeed(nil)
	sub, err := source.Subscribe("firehose", f, nil, nil)
	if err != nil {
		r.Fatal(err)
	}
	batches := History(r.random(), 1000)
	for _, b := range batches {
		if err := source.Reserve(r.Context()); err != nil {
			r.Fatal(err)
		}
		source.Append(b)
	}
	last := batches[len(batches)-1].Position
	r.eventually("everything is handled", func() bool { return sub.Lag().Batches == 0 })
	source.Close() // which flushes
	<-sub.Done()
	if err := sub.Err(); err != nil {
		r.Errorf("the subscription ends with %v, want nil", err)
	}
	if sub.Stored().Compare(last) < 0 {
		r.Errorf("Stored = %s, want %s: a feed that closes flushes", sub.Stored(), last)
	}
	r.verify(batches)
}
