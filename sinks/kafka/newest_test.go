package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestNewestIsThePositionOfTheLastEvent(t *testing.T) {
	c := run(t)
	newest := func() listeners.Position {
		t.Helper()
		at, err := kafka.Newest(t.Context(), c.url(), sinktest.Database)
		if err != nil {
			t.Fatalf("Newest: %v", err)
		}
		return at
	}
	if got := newest(); !got.IsZero() {
		t.Errorf("Newest without topics = %s, want the zero position", got)
	}
	batches := sinktest.History(random(t, 1), 150)
	store(t, open(t, c, nil), batches)
	var want listeners.Position
	for _, b := range batches {
		for _, e := range b.Events {
			want = e.Position
		}
	}
	if got := newest(); got != want {
		t.Errorf("Newest = %s, want %s", got, want)
	}
}

func TestNewestRefusesAndEnds(t *testing.T) {
	_, err := kafka.Newest(t.Context(), "kafka://u:hid%zz@localhost", "")
	if err == nil || !strings.Contains(err.Error(), "must have a name") || strings.Contains(err.Error(), "hid") {
		t.Errorf("Newest with two faults = %v, want both, without the password", err)
	}
	late, cancelLate := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelLate()
	_, err = kafka.Newest(late, "kafka://u:hidden@127.0.0.1:1", "shop")
	if _, unreachable := errors.AsType[*sinks.UnreachableError](err); !unreachable || strings.Contains(err.Error(), "hidden") {
		t.Errorf("Newest where nobody answers = %v, want an UnreachableError without the password", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := kafka.Newest(ctx, "kafka://127.0.0.1:1", "shop"); !errors.Is(err, enough) {
		t.Errorf("Newest with a context that has ended = %v, want its cause", err)
	}
}
