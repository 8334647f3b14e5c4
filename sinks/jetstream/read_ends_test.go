package jetstream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A reader that is to end at the tip does so also when what it was to read is
// removed meanwhile.
func TestReadEndsWhenTheRestIsRemoved(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	// More than is on its way at once.
	batches := []*listeners.Batch{transaction(1, 1500), transaction(2, 1500)}
	for name, remove := range map[string]func(natsjs.Stream) error{
		"all": func(s natsjs.Stream) error { return s.Purge(t.Context()) },
		"what is behind the next messages": func(s natsjs.Stream) error {
			return s.Purge(t.Context(), natsjs.WithPurgeSubject("cdc.shop.public.seats.create.>"))
		},
		"the last message": func(s natsjs.Stream) error { return s.DeleteMsg(t.Context(), s.CachedInfo().State.LastSeq) },
	} {
		t.Run(name, func(t *testing.T) {
			js := natstest.JetStream(t, s)
			if err := js.DeleteStream(t.Context(), "CDC_SHOP"); err != nil && !errors.Is(err, natsjs.ErrStreamNotFound) {
				t.Fatal(err)
			}
			store(t, openAnew(t, nc, nil), batches)
			stream, err := js.Stream(t.Context(), "CDC_SHOP")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n := 0
			for m, err := range jetstream.Read(ctx, nc, "CDC_SHOP", nil) {
				if err != nil {
					t.Fatalf("Read after %d messages: %v", n, err)
				}
				if n++; m.Sequence == 1 {
					if err := remove(stream); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n == 0 || n >= 3000 {
				t.Errorf("Read yielded %d messages, want some, and not those that were removed", n)
			}
		})
	}
}

// A reader says that its stream is gone, rather than to wait for it.
func TestReadSaysThatTheStreamWasDeleted(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(1, 2)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last error
	for m, err := range jetstream.Read(ctx, nc, "CDC_SHOP", &jetstream.ReadOptions{Follow: true}) {
		if last = err; err == nil && m.Sequence == 2 {
			if err := natstest.JetStream(t, s).DeleteStream(t.Context(), "CDC_SHOP"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if wrong, ok := errors.AsType[*sinks.PlaceError](last); !ok || !strings.Contains(wrong.Reason, "deleted while it was read") {
		t.Errorf("Read of a stream that is deleted ends with %v, want a PlaceError that says so", last)
	}
}
