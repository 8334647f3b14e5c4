package grid_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestGroupRefusesWhatCannotWork(t *testing.T) {
	src := newShop()
	g := newGrid(t)
	tr := newTrade(t, g, src)
	want := func(what string, err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s = %v, want an error with %q", what, err, text)
		}
	}
	_, err := grid.NewGroup(g, "trade", src, nil)
	want("NewGroup() twice", err, "taken")
	_, err = grid.NewGroup(g, "other", nil, nil)
	want("NewGroup() without a source", err, "source is nil")
	_, err = grid.AddTable[int64, item](tr.group, "again", "public.items", nil)
	want("AddTable() of the same collection", err, "follows public.items already")
	_, err = grid.AddTable[int64, item](tr.group, "items", "public.others", nil)
	want("AddTable() with a taken name", err, "taken")
	_, err = grid.AddTable[int64, item](tr.group, "none", "", nil)
	want("AddTable() without a collection", err, "collection is empty")
	_, err = tr.group.Subscribe("x", nil, nil)
	want("Subscribe() without a listener", err, "listener is nil")
	_, err = tr.group.Subscribe("x", new(listenertest.Recorder), &listeners.SubscribeOptions{Collections: []string{"public.items"}})
	want("Subscribe() to what is no region", err, `no region "public.items"`)
	if _, err := tr.items.Put(t.Context(), 1, item{}); !errors.Is(err, grid.ErrMirror) {
		t.Errorf("Put() into a region of a group = %v, want ErrMirror", err)
	}
	empty, err := grid.NewGroup(g, "empty", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	want("Start() without regions", empty.Start(), "call AddTable first")
	start(t, tr)
	want("Start() twice", tr.group.Start(), "started before")
	_, err = grid.AddTable[int64, item](tr.group, "late", "public.late", nil)
	want("AddTable() after Start", err, "add its regions before Start")
	if err := tr.group.Close(deadline(t)); err != nil {
		t.Fatalf("Close() = %v, want nil", err)
	}
	_, err = tr.group.Subscribe("x", new(listenertest.Recorder), nil)
	if !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Subscribe() to a closed group = %v, want ErrClosed", err)
	}
	if _, err := grid.Open[int64, item](g, "items", nil); err != nil {
		t.Errorf("Open() with the name of a region whose group was closed = %v, want nil", err)
	}
	if err := empty.Close(deadline(t)); err != nil {
		t.Errorf("Close() of a group that was never started = %v, want nil", err)
	}
	if err := empty.WaitReady(t.Context()); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("WaitReady() of a closed group = %v, want ErrClosed", err)
	}
}

// The regions of a group keep the history that they were asked for, as mirrors
// do.
func TestGroupRegionsHaveHistory(t *testing.T) {
	src := newShop()
	group, err := grid.NewGroup(newGrid(t), "trade", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	items, err := grid.AddTable[int64, item](group, "items", "public.items", &grid.MirrorOptions[item]{HistoryBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Start(); err != nil {
		t.Fatal(err)
	}
	ready(t, items)
	var from, last listeners.Position
	for i := range 3 {
		from, last = last, src.commit(1, src.items.event(listeners.Create, "", "", fmt.Sprintf("%d|n|t", i))).Position
	}
	checkMirror(t, items, last, map[int64]item{0: {Name: "n", Text: "t"}, 1: {Name: "n", Text: "t"}, 2: {Name: "n", Text: "t"}})
	var rec listenertest.Recorder
	subscribe(t, items, &rec, &listeners.SubscribeOptions{From: from})
	heard, err := rec.WaitEvents(deadline(t), 1)
	if err != nil || len(heard) != 1 || heard[0].Key != "2" {
		t.Errorf("from the second transaction on a listener heard %v, %v; want key 2", heard, err)
	}
}
