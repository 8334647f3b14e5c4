package main

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

type pricedSeat struct {
	ID    int64
	Price int
}

// One transaction of three rows: one batch of three for a Go listener and for
// a listener of a mirrored region, three messages of one transaction in the
// stream, and the same three positions everywhere.
func TestATransactionIsTheSameInListenerRegionAndStream(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE seats (id bigint PRIMARY KEY, price int)", "INSERT INTO seats VALUES (1, 10), (2, 20)")
	src, err := cdc.New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	nc := natstest.Connect(t, natstest.Run(t))
	firehose, err := jetstream.New(nc, src.Database(), &jetstream.Options{Stream: "CDC_SHOP"})
	if err != nil {
		t.Fatal(err)
	}
	defer firehose.Close()
	if err := firehose.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := grid.New("tickets", nil)
	seats, err := grid.Mirror[int64, pricedSeat](g, "seats", src.Table("public.seats"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var direct, mirrored listenertest.Recorder
	_, err = src.Subscribe("listener", &direct, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = src.Subscribe("firehose", firehose, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ran := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { ran <- src.Run(running) }()
	defer func() {
		stop()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := g.Close(ctx); err != nil {
			t.Errorf("close the grid: %v", err)
		}
	}()
	if err := seats.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := seats.Subscribe("region listener", &mirrored, nil); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "WITH a AS (INSERT INTO seats VALUES (3, 30)), b AS (UPDATE seats SET price = 11 WHERE id = 1) DELETE FROM seats WHERE id = 2")
	if err := src.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}

	batches, err := mirrored.Wait(ctx, func(b []listenertest.Batch) bool { return len(b) > 0 })
	if err != nil {
		t.Fatal(err)
	}
	all := direct.Batches()
	want := all[len(all)-1]
	if len(want.Events) != 3 || !want.First || !want.Last || want.Kind != listeners.Changes {
		t.Fatalf("the listener's last batch is %+v, want the whole transaction", want)
	}
	if len(batches) != 1 || len(batches[0].Events) != 3 || batches[0].Position != want.Position || batches[0].Tx != want.Tx {
		t.Fatalf("the region's listener got %+v, want one batch of 3 at %s", batches, want.Position)
	}
	type place struct {
		Op       listeners.Op
		Key      string
		Position listeners.Position
	}
	var direct3, region3, stream3 []place
	for i := range 3 {
		direct3 = append(direct3, place{want.Events[i].Op, want.Events[i].Key, want.Events[i].Position})
		region3 = append(region3, place{batches[0].Events[i].Op, batches[0].Events[i].Key, batches[0].Events[i].Position})
	}
	var ends []bool
	for m, err := range jetstream.Read(ctx, nc, "CDC_SHOP", nil) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Op != listeners.Read {
			var key struct{ ID int64 }
			if err := json.Unmarshal(m.Key, &key); err != nil {
				t.Fatal(err)
			}
			stream3 = append(stream3, place{m.Op, strconv.FormatInt(key.ID, 10), m.Position})
			ends = append(ends, m.TxEnd)
		}
	}
	if diff := cmp.Diff(direct3, region3); diff != "" {
		t.Errorf("listener and region differ (-listener +region):\n%s", diff)
	}
	if diff := cmp.Diff(direct3, stream3); diff != "" {
		t.Errorf("listener and stream differ (-listener +stream):\n%s", diff)
	}
	if diff := cmp.Diff([]bool{false, false, true}, ends); diff != "" {
		t.Errorf("ends of the transaction in the stream (-want +got):\n%s", diff)
	}
	// The region held the rows: what Postgres does not send is there.
	for _, e := range batches[0].Events {
		if (e.Op == listeners.Create) != (e.Before == "null") {
			t.Errorf("%s: the region's event should have the old value", e)
		}
	}
}
