package kafka_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A database of which there is nothing to read is most likely a name that was misspelt.
func TestASourceThatEndsNamesADatabaseWithoutTopics(t *testing.T) {
	t.Parallel()
	c := run(t)
	_, err := readAll(t, c, sinks.SourceOptions{Start: sinks.Start{Oldest: true}}, nil)
	wantTopicError(t, err, "topics cdc.shop.*: there are none that this user may see; these brokers have such topics of no database; see whether")

	if err := c.CreateTopic("cdc.Sh%C3%B6p%2E2.public.seats", 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"cdc.trains.public.cars", "cdc.trains.public.seats", "cdc.parked", "latest.other.public.seats", "cdc.a.b.c.d"} {
		if err := c.CreateTopic(other, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, start := range map[string]sinks.Start{"oldest": {Oldest: true}, "now": {}, "position": {After: sinktest.At(1, 0)}} {
		_, err = readAll(t, c, sinks.SourceOptions{Start: start}, nil)
		t.Run(name, func(t *testing.T) { wantTopicError(t, err, `these brokers have such topics of `) })
		if !strings.Contains(err.Error(), `"trains"; see whether the database's name is right`) {
			t.Errorf("%s: Run = %v, want that it names the databases", name, err)
		}
	}
}

func TestDatabasesAreThoseOfTopics(t *testing.T) {
	t.Parallel()
	c := run(t)
	databases := func() []string {
		t.Helper()
		got, err := kafka.Databases(t.Context(), c.url())
		if err != nil {
			t.Fatalf("Databases: %v", err)
		}
		return got
	}
	if got := databases(); len(got) > 0 {
		t.Errorf("Databases without topics = %q, want none", got)
	}
	store(t, open(t, c, nil), []*listeners.Batch{sinktest.Transaction(1, 3)})
	for _, other := range []string{"cdc.trains.public.cars", "cdc.trains.public.seats", "cdc.parked", "latest.other.public.seats", "cdc.a.b.c.d"} {
		if err := c.CreateTopic(other, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := databases(), []string{"shop", "trains"}; !slices.Equal(got, want) {
		t.Errorf("Databases = %q, want %q", got, want)
	}
	if _, err := kafka.Databases(t.Context(), "nats://u:secret@h"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Databases of another broker's URL = %v, want an error without the password", err)
	}
}

// A source that follows begins before the firehose's first run; but what a position
// names is gone where there are no topics.
func TestASourceThatFollowsWaitsForTopics(t *testing.T) {
	t.Parallel()
	c := run(t)
	fresh, after := new(listenertest.Recorder), new(listenertest.Recorder)
	s := source(t, c, nil)
	sinktest.Subscribe(t, s, fresh, nil)
	sinktest.Start(t, s)
	s = source(t, c, &sinks.SourceOptions{Start: sinks.Start{After: sinktest.At(1, 0)}})
	sub := sinktest.Subscribe(t, s, new(listenertest.Recorder), &listeners.SubscribeOptions{From: sinktest.At(1, 0)})
	if _, err := s.Subscribe("state", after, nil); err != nil {
		t.Fatal(err)
	}
	sinktest.Start(t, s)
	<-sub.Done()
	if _, gone := errors.AsType[*listeners.HistoryError](sub.Err()); !gone {
		t.Errorf("a subscription from a position without topics = %v, want a HistoryError", sub.Err())
	}
	if _, err := after.Wait(t.Context(), func(b []listenertest.Batch) bool {
		return len(b) > 0 && b[0].Kind == listeners.Reset && b[len(b)-1].Kind == listeners.Live
	}); err != nil {
		t.Errorf("the source behind a position without topics does not tell a reset: %v", err)
	}
	store(t, open(t, c, nil), []*listeners.Batch{sinktest.Transaction(3, 2)})
	for _, r := range []*listenertest.Recorder{fresh, after} {
		waitFor(t, r, sinktest.At(3, 1))
	}
}
