package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A snapshot goes on in another run, which tells changes of the tables that are
// complete first. Readers are told Live when the other tables are there, too.
func TestSnapshotThatGoesOnIsLiveAtItsEnd(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	begun, rest, end := snapshot(4, 5), reset(8), live(8)
	begun.Last, rest.Collections = false, []string{"public.trains"}

	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 1), reset(4), begun})
	f.Close()
	f = openAnew(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(5, 2)})
	f.Close()
	f = openAnew(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(6, 1)})

	s := source(t, nc, nil)
	r := new(listenertest.Recorder)
	sub := sinktest.Subscribe(t, s, r, &listeners.SubscribeOptions{Current: true})
	sinktest.Start(t, s)
	stream, err := natstest.JetStream(t, server).Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader adds up the state", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Consumers == 2 // that of Run is the other one
	})
	store(t, f, []*listeners.Batch{rest, end, transaction(9, 1)})

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := sub.Wait(ctx, at(9, 0)); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	kinds := ""
	for _, b := range r.Batches() {
		kinds += b.Kind.String() + " "
	}
	if want := "reset snapshot live changes "; kinds != want {
		t.Errorf("the reader is told %s, want %s", kinds, want)
	}
	marks := ""
	for seq := uint64(1); ; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			break
		}
		if position, err := listeners.ParsePosition(m.Header.Get("ce-sequence")); err == nil && !strings.Contains(m.Subject, ".read.") {
			marks += fmt.Sprintf("%d%s ", position.Commit, m.Header.Get("ce-filling"))
		}
	}
	if want := "1 4 5true 5true 6true 8 8 9 "; marks != want {
		t.Errorf("the changes and markers are %s, want %s", marks, want)
	}
}

// Rows that were being read again are no snapshot, so changes behind them are ordinary ones.
func TestBackfillThatWasCutOffLeavesNoMark(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	again := snapshot(6, 3)
	again.Last = false
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 1), reset(4), snapshot(4, 2), live(4), again})
	f.Close()
	store(t, openAnew(t, nc, nil), []*listeners.Batch{transaction(7, 1)})
	stream, err := natstest.JetStream(t, server).Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), stream.CachedInfo().State.LastSeq)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("ce-filling") != "" || m.Header.Get("ce-txid") != "7" {
		t.Errorf("the last message has the headers %v, want transaction 7 without a mark", m.Header)
	}
}
