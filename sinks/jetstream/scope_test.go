package jetstream_test

import (
	"strings"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A region's firehose takes the events of that region alone.
func TestRegionFirehoseRefusesOthers(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	for name, of := range map[string][2]string{"another region": {"trains", "cars"}, "another grid": {"ships", "seats"}} {
		t.Run(name, func(t *testing.T) {
			f, err := jetstream.NewRegion(nc, of[0], of[1], nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.Close)
			if err := f.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			g := grid.New("trains", nil)
			seats, err := grid.Open[string, int](g, "seats", nil)
			if err != nil {
				t.Fatal(err)
			}
			sub, err := seats.Subscribe("firehose", f, &listeners.SubscribeOptions{Current: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := seats.Put(t.Context(), "12A", 1); err != nil {
				t.Fatal(err)
			}
			<-sub.Done()
			if err := sub.Err(); err == nil || !strings.Contains(err.Error(), "does not belong") {
				t.Errorf("Err() = %v, want that the event does not belong there", err)
			}
		})
	}
	if _, err := jetstream.NewRegion(nc, "trains", "", nil); err == nil {
		t.Error("NewRegion without a region = nil, want an error")
	}
	if _, err := jetstream.NewRegion(nc, "", "seats", nil); err == nil {
		t.Error("NewRegion without a grid = nil, want an error")
	}
	if got := jetstream.RegionStreamName("trains", "my seats"); got != "GRID_TRAINS_MY-20SEATS" {
		t.Errorf("RegionStreamName = %q", got)
	}
}

// A region that has not changed is not stored again when its firehose comes
// back, and one that has is stored anew behind a reset.
func TestRegionIsStoredOnce(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	g, region := process(t)
	r := random(t, 63)
	for range 30 {
		change(t, g, region, r)
	}
	last := func() uint64 {
		stream, err := natstest.JetStream(t, s).Stream(t.Context(), "GRID_TRAINS_TICKETS")
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.LastSeq
	}
	stop := publish(t, nc, region, nil)
	for range 30 {
		change(t, g, region, r)
	}
	if _, err := region.Put(t.Context(), place{Car: 9}, ticket{}); err != nil {
		t.Fatal(err)
	}
	regionStored(t, nc, region)
	stop()
	before := last()
	publish(t, nc, region, nil)()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := last(); got != before {
		t.Errorf("the stream grew from %d to %d messages for a region that has not changed", before, got)
	}
	if _, err := region.Put(t.Context(), place{Car: 9}, ticket{Price: 1}); err != nil {
		t.Fatal(err)
	}
	stop = publish(t, nc, region, nil)
	m, src := mirror(t, connect(t, s), nil)
	sinktest.Start(t, src)
	equal(t, "the mirror", m, region)
	if got, want := last(), before+1+uint64(region.Len()); got < want {
		t.Errorf("the stream holds %d messages, want %d: the reset and the rows", got, want)
	}
	stop()
}
