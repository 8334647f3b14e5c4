package kafka_test

import (
	"context"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A region in another process mirrors a table over the history, too: from its
// beginning, or in the midst of it, and across the writer's restarts.
func TestMirrorsOverTheHistoryEqualTheTable(t *testing.T) {
	t.Parallel()
	c := run(t)
	batches, rows := history(random(t, 61), 120)
	mirror := func() *pages {
		s := source(t, c, nil)
		g := grid.New("here", nil)
		t.Cleanup(func() { _ = g.Close(context.Background()) }) //nolint:usetesting // t's context has ended by then
		m, err := grid.Mirror[string, page](g, "notes", s, &grid.MirrorOptions[page]{Collection: "public.notes"})
		if err != nil {
			t.Fatal(err)
		}
		sinktest.Start(t, s)
		return m
	}
	mirrors := []*pages{mirror()}
	const lives = 3
	for i := 1; i <= lives; i++ {
		f := open(t, c, &kafka.Options{})
		until := batches[:len(batches)*i/lives]
		for len(until) > 0 && !until[len(until)-1].Last {
			until = batches[:len(until)+1]
		}
		store(t, f, until)
		f.Close()
		mirrors = append(mirrors, mirror())
	}
	for _, m := range mirrors {
		wantPages(t, "a mirror", m, rows)
	}
}
