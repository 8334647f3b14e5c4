package sinktest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Each process is fed everything from the beginning and killed at a random
// moment. Its successor goes on behind what the broker has stored.
func firehoseKilled(r *rig) {
	random := r.random()
	kills := r.faults()
	batches := History(random, 100)
	var closing sync.WaitGroup
	defer closing.Wait()
	for killed := 0; killed < kills; {
		batches = continued(random, batches, 500)
		c := r.open(FirehoseSetup{Narrow: random.IntN(2) == 0})
		ctx, cancel := context.WithCancel(r.Context())
		fed := make(chan error, 1)
		go func() {
			err := Feed(ctx, c.Firehose, batches)
			if err == nil {
				err = c.Firehose.Flush(ctx)
			}
			fed <- err
		}()
		moment := 1 + random.Uint64N(300)
		r.eventually("messages are on their way", func() bool {
			return c.Firehose.Stats().Sent >= moment || len(fed) > 0
		})
		c.Kill()
		cancel()
		if err := <-fed; err != nil {
			killed++ // before all was stored
		}
		said := c.Firehose.Stored()
		if r.server.Unfenced {
			c.Firehose.Close()
		} else {
			closing.Go(c.Firehose.Close)
		}
		if killed%5 == 0 {
			r.holds(batches, said)
		}
	}
	r.store(r.open(FirehoseSetup{}).Firehose, batches)
	r.verify(batches)
}

// chaos stores a history while a fault is injected at random moments.
func chaos(r *rig, c *FirehoseClient, random *rand.Rand, batches []*listeners.Batch, faults int, fault func()) {
	r.Helper()
	moments := make(map[int]bool)
	for len(moments) < faults {
		moments[random.IntN(len(batches))] = true
	}
	delay := rand.New(rand.NewPCG(random.Uint64(), 1))
	trigger := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range trigger {
			moment := time.NewTimer(time.Duration(delay.IntN(3_000)) * time.Microsecond)
			<-moment.C
			fault()
		}
	})
	// A lost acknowledgement may cost a second each time, where nothing else is on
	// its way whose answer would tell.
	patience := firehosePatience + time.Duration(faults)*20*time.Second
	ctx, cancel := context.WithTimeoutCause(r.Context(), patience, fmt.Errorf("not within %s", patience))
	defer cancel()
	var err error
	for i := 0; i < len(batches) && err == nil; i++ {
		if moments[i] {
			trigger <- struct{}{} // waits for the last fault to be over
		}
		err = Feed(ctx, c.Firehose, batches[i:i+1])
	}
	close(trigger)
	wg.Wait()
	if err != nil {
		r.Fatal(err)
	}
	if err := c.Firehose.Flush(ctx); err != nil {
		r.Fatalf("Flush: %v", err)
	}
	if last := batches[len(batches)-1].Position; c.Firehose.Stored().Compare(last) < 0 {
		r.Errorf("Stored after a flush = %s, want %s at least", c.Firehose.Stored(), last)
	}
	r.verify(batches)
}

func firehoseCut(r *rig) {
	random := r.random()
	n := r.faults()
	c := r.open(FirehoseSetup{Narrow: true})
	chaos(r, c, random, History(random, 150*n), n, c.Cut)
}

func firehoseLostAcks(r *rig) {
	random := r.random()
	n := r.faults()
	c := r.open(FirehoseSetup{Narrow: true})
	chaos(r, c, random, History(random, 150*n), n, func() { c.LoseAcks(1 + rand.IntN(20)) })
}

func firehoseBrokerRestarted(r *rig) {
	random := r.random()
	n := max(r.faults()/4, 1)
	c := r.open(FirehoseSetup{Narrow: true})
	chaos(r, c, random, History(random, 300*n), n, func() { r.server.Restart(r.TB) })
}

// All kinds of faults, and a new process now and then.
func firehoseRandomFaults(r *rig) {
	random := r.random()
	n := r.faults()
	batches := History(random, 150*n)
	const processes = 4
	for i := range processes {
		c := r.open(FirehoseSetup{Narrow: random.IntN(2) == 0})
		dice := rand.New(rand.NewPCG(random.Uint64(), 2))
		chaos(r, c, random, batches[:len(batches)*(i+1)/processes], max(n/processes, 1), func() {
			switch dice.IntN(5) {
			case 0:
				r.server.Restart(r.TB)
			case 1, 2:
				c.LoseAcks(1 + dice.IntN(5))
			default:
				c.Cut()
			}
		})
		c.Kill()
		c.Firehose.Close()
	}
}
