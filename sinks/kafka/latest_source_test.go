package kafka_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func latestSource(t testing.TB, c *cluster, opts *sinks.SourceOptions, client ...kgo.Opt) *sinks.Source {
	t.Helper()
	var o sinks.SourceOptions
	if opts != nil {
		o = *opts
	}
	if os.Getenv("ROWCALL_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := kafka.NewLatestSource(c.url(), sinktest.Database, &o, client...)
	if err != nil {
		t.Fatalf("NewLatestSource: %v", err)
	}
	return s
}

// A latestServer is a fake cluster with a firehose of the latest state.
type latestServer struct{ sourceServer }

func (s *latestServer) Source(t testing.TB, opts *sinks.SourceOptions) *sinks.Source {
	return latestSource(t, s.c, opts)
}

func TestLatestSources(t *testing.T) {
	t.Parallel()
	sinktest.Sources(t, func(t testing.TB) sinktest.SourceServer {
		c := run(t)
		return &latestServer{sourceServer{c: c, f: latest(t, c, kafka.Options{})}}
	})
}

// A page is what a mirror of the notes holds.
type page struct{ Title, Body string }

type pages = grid.Region[string, page]

// mirrorNotes mirrors a table over the compacted topics, in a process of its own.
func mirrorNotes(t testing.TB, c *cluster, client ...kgo.Opt) *pages {
	t.Helper()
	s := latestSource(t, c, nil, client...)
	g := grid.New("here", nil)
	t.Cleanup(func() { _ = g.Close(context.Background()) }) //nolint:usetesting // t's context has ended by then
	m, err := grid.Mirror[string, page](g, "notes", s, &grid.MirrorOptions[page]{Collection: "public.notes"})
	if err != nil {
		t.Fatal(err)
	}
	sinktest.Start(t, s)
	return m
}

// wantPages waits until a mirror holds a table.
func wantPages(t testing.TB, what string, m *pages, want map[string]string) {
	t.Helper()
	held := make(map[string]string)
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		clear(held)
		for title, p := range maps.Collect(m.All()) {
			held[title] = p.Body
		}
		diff := cmp.Diff(want, held)
		if diff == "" {
			return
		}
		select {
		case <-tick.C:
		case <-m.Done():
			t.Fatalf("%s has ended: %v", what, m.Err())
		case <-deadline.C:
			t.Fatalf("%s does not hold the table after a minute (-table +mirror):\n%s", what, diff)
		}
	}
}

// Writers die, everything is compacted in between, tombstones too; mirrors that have followed from the
// beginning, those that join at any time, and one whose connections break, all
// come to hold the table.
func TestMirrorsOverTheLatestStateEqualTheTable(t *testing.T) {
	t.Parallel()
	c := run(t)
	r := random(t, 60)
	batches, rows := history(r, 150)
	w := new(suiteWire)
	mirrors := []*pages{mirrorNotes(t, c), mirrorNotes(t, c, kgo.Dialer(w.dial))}
	heard := new(listenertest.Recorder)
	if _, err := mirrors[0].Subscribe("test", heard, nil); err != nil {
		t.Fatal(err)
	}
	const lives = 4
	for i := 1; i <= lives; i++ {
		died := new(suiteWire)
		f := latest(t, c, kafka.Options{Client: []kgo.Opt{kgo.Dialer(died.dial)}})
		if err := sinktest.Feed(t.Context(), f, batches[:len(batches)*i/lives]); err != nil {
			t.Fatal(err)
		}
		w.cut()
		if i < lives && i%2 == 0 {
			died.kill() // what it has in flight is lost
		} else if err := f.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Close()
		c.Compact()
		mirrors = append(mirrors, mirrorNotes(t, c))
	}
	for _, m := range mirrors {
		wantPages(t, "a mirror", m, rows)
	}
	var last listeners.Position
	for _, b := range heard.Batches() {
		if b.Kind == listeners.Changes && b.Position.Compare(last) <= 0 {
			t.Errorf("a batch at %s came after %s", b.Position, last)
		}
		last = b.Position
	}
	m := mirrorNotes(t, c)
	if err := m.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "a mirror that joins at the end", m, rows)
}

// Who follows hears what a listener of the database hears: transactions whole, updates of
// keys as one event, truncates and resets as such.
func TestLatestSourceTellsTheBatchesOfTheDatabase(t *testing.T) {
	t.Parallel()
	c := run(t)
	batches := snapshot(1, map[string]string{"a": "1", "b": "2"})
	batches = append(batches,
		transaction(2, create("c", "3"), update("a", "d", "4"), remove("b")),
		transaction(3, create("e", "5"), truncate(), create("f", "6"), update("f", "f", "7")),
		transaction(4, truncate()),
	)
	batches = append(batches, snapshot(5, map[string]string{"g": "8"})...)
	batches = append(batches, transaction(6, update("g", "h", "9")))
	batches = append(batches, snapshot(7, nil)...)
	batches = append(batches, transaction(8, create("i", "10")))
	follower := new(listenertest.Recorder)
	s := latestSource(t, c, nil)
	sinktest.Subscribe(t, s, follower, nil)
	sinktest.Start(t, s)
	f := latest(t, c, kafka.Options{})
	for _, b := range batches {
		store(t, f, []*listeners.Batch{b})
	}
	want := sinktest.Recorded(batches...)
	// A delete and an update tell no old row but the key, and one Live ends a snapshot.
	line := func(batches []listenertest.Batch) (lines []string) {
		for _, b := range batches {
			if b.Kind == listeners.Reset || b.Kind == listeners.Changes {
				lines = append(lines, b.Kind.String()+" "+b.Position.String())
			}
			if b.Kind == listeners.Live {
				lines = append(lines, "live")
			}
			for _, e := range b.Events {
				lines = append(lines, e.Op.String()+" "+e.Key+" "+e.OldKey+" "+e.After+" "+e.Position.String())
			}
		}
		return lines
	}
	got := waitFor(t, follower, batches[len(batches)-1].Position)
	if diff := cmp.Diff(line(want), line(got)); diff != "" {
		t.Errorf("batches (-database +source):\n%s", diff)
	}
}

// A state that is being told is not taken for the whole.
func TestLatestSourceWaitsForTheEndOfASnapshot(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := latest(t, c, kafka.Options{})
	store(t, f, []*listeners.Batch{transaction(1, create("a", "1"), create("old", "2"))})
	first := mirrorNotes(t, c)
	wantPages(t, "the first mirror", first, map[string]string{"a": "1", "old": "2"})
	told := snapshot(3, map[string]string{"a": "3", "b": "4", "c": "5"})
	parts := sinktest.Parts(told[1], 2)
	store(t, f, []*listeners.Batch{told[0], parts[0]})
	late := mirrorNotes(t, c)
	s := latestSource(t, c, nil)
	heard := new(listenertest.Recorder)
	sinktest.Subscribe(t, s, heard, nil)
	sinktest.Start(t, s)
	select {
	case <-late.Ready():
		t.Error("a mirror is ready within a snapshot")
	default:
	}
	wantPages(t, "the first mirror within the snapshot", first, map[string]string{"a": "1", "old": "2"})
	store(t, f, []*listeners.Batch{parts[1], told[2]})
	all := map[string]string{"a": "3", "b": "4", "c": "5"}
	wantPages(t, "the first mirror", first, all)
	if err := late.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "the late mirror", late, all)
}

// What is too old to be gone on from begins anew, since a delete may be forgotten.
func TestLatestSourceGoesOnWhileTombstonesAreKept(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := latest(t, c, kafka.Options{})
	batches := []*listeners.Batch{transaction(1, create("a", "1"), create("b", "2")), transaction(2, remove("a")), transaction(3, create("c", "3"))}
	store(t, f, batches)
	c.Compact()
	from := batches[0].Position
	read := func() ([]listenertest.Batch, *listeners.Subscription) {
		t.Helper()
		heard := new(listenertest.Recorder)
		s := latestSource(t, c, &sinks.SourceOptions{Start: sinks.Start{After: from}, UntilTip: true})
		sinktest.Subscribe(t, s, heard, nil)
		sub, err := s.Subscribe("named", new(listenertest.Recorder), &listeners.SubscribeOptions{From: from})
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Run(t.Context()) // the subscription's error
		return heard.Batches(), sub
	}
	got, sub := read()
	if diff := cmp.Diff(sinktest.Events(sinktest.Recorded(batches[1:]...)), sinktest.Events(got)); diff != "" || sub.Err() != nil {
		t.Errorf("events behind %s, %v (-want +got):\n%s", from, sub.Err(), diff)
	}
	a := admin(t, c)
	if _, err := a.AlterTopicConfigs(t.Context(), setTo("delete.retention.ms", "0"), notesTopic); err != nil {
		t.Fatal(err)
	}
	got, sub = read()
	if len(got) != 3 || got[0].Kind != listeners.Reset || len(got[1].Events) != 2 || got[2].Kind != listeners.Live {
		t.Errorf("batches behind what is too old = %v, want a reset, two rows, and Live", sinktest.Told(got))
	}
	if _, gone := errors.AsType[*listeners.HistoryError](sub.Err()); !gone {
		t.Errorf("a subscription from what is too old = %v, want a HistoryError", sub.Err())
	}
}

// Without one of its topics the latest state is not whole, until the firehose has told it
// again.
func TestLatestSourceNoticesThatATopicWasDeleted(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := latest(t, c, kafka.Options{})
	one := sinktest.Transaction(1, 1)
	store(t, f, []*listeners.Batch{one, transaction(2, create("a", "1"))})
	m := mirrorNotes(t, c)
	wantPages(t, "the mirror", m, map[string]string{"a": "1"})
	f.Close()
	if _, err := admin(t, c).DeleteTopics(t.Context(), "latest.shop.public.seats"); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	wantTopicError(t, m.Err(), "topics latest.shop.*: they do not hold the whole state any more; start their firehose")
	f = latest(t, c, kafka.Options{})
	if !f.Empty() {
		t.Error("Empty = false, want that the state is told again")
	}
	store(t, f, append(snapshot(4, map[string]string{"b": "2"}), sinktest.Transaction(5, 1)))
	m = mirrorNotes(t, c)
	wantPages(t, "the next mirror", m, map[string]string{"b": "2"})
}

func TestLatestSourceErrors(t *testing.T) {
	t.Parallel()
	if _, err := kafka.NewLatestSource("kafka://u:secret@h:x:y", "", nil); err == nil {
		t.Error("NewLatestSource of nothing = nil, want an error")
	}
	c := run(t)
	end := func() error {
		t.Helper()
		s := latestSource(t, c, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
		return s.Run(t.Context())
	}
	wantTopicError(t, end(), "topics latest.shop.*: there are none that this user may see; these brokers have such topics of no database")
	store(t, latest(t, c, kafka.Options{NoTransactions: true}), []*listeners.Batch{transaction(1, create("a", "1"))})
	wantTopicError(t, end(), "was stored without a Kafka transaction")
}

// Firehose.Read reads it, too.
func TestLatestStateIsRead(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := latest(t, c, kafka.Options{})
	store(t, f, []*listeners.Batch{transaction(1, create("a", "1"))})
	heard := new(listenertest.Recorder)
	if err := f.Read(t.Context(), sinks.Start{Oldest: true}, heard, &sinks.SourceOptions{UntilTip: true}); err != nil || len(heard.Events()) != 1 {
		t.Errorf("Read = %v with %d events, want one", err, len(heard.Events()))
	}
}

func setTo(name, value string) []kadm.AlterConfig {
	return []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}
}
