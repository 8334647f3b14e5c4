package jetstream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func TestRead(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, nil)
	batches := []*listeners.Batch{transaction(1, 3), transaction(2, 3)}
	store(t, f, batches)
	later := time.Now()
	b := transaction(5, 2)
	batches = append(batches, b, reset(6), snapshot(6, 2))
	store(t, f, batches[2:])
	all := stored(batches)

	stream, err := natstest.JetStream(t, s).Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		opts jetstream.ReadOptions
		want []string
	}{
		"all":                     {jetstream.ReadOptions{}, all},
		"from a sequence":         {jetstream.ReadOptions{Sequence: 8}, all[7:]},
		"from behind the end":     {jetstream.ReadOptions{Sequence: 100}, nil},
		"from a time":             {jetstream.ReadOptions{Time: later}, all[6:]},
		"from a time to come":     {jetstream.ReadOptions{Time: later.Add(time.Hour)}, nil},
		"after a position":        {jetstream.ReadOptions{After: at(2, 0)}, all[4:]},
		"after one in between":    {jetstream.ReadOptions{After: at(4, 9)}, all[6:]},
		"before all":              {jetstream.ReadOptions{After: at(0, 1)}, all},
		"after all":               {jetstream.ReadOptions{After: at(9, 0)}, nil},
		"one operation":           {jetstream.ReadOptions{FilterSubjects: []string{"cdc.shop.*.*.read.*"}}, all[9:]},
		"two filters":             {jetstream.ReadOptions{FilterSubjects: []string{"cdc.shop.*.*.read.*", "cdc.shop._control.>"}}, all[8:]},
		"a filter without a find": {jetstream.ReadOptions{FilterSubjects: []string{"cdc.shop.public.trains.>"}}, nil},
		"new only":                {jetstream.ReadOptions{New: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if len(tc.opts.FilterSubjects) > 1 {
				needs(t, nc, 12) // since they overlap
			}
			if diff := cmp.Diff(tc.want, readLines(t, nc, &tc.opts)); diff != "" {
				t.Errorf("Read(%+v) (-want +got):\n%s", tc.opts, diff)
			}
		})
	}

	for seq := uint64(2); seq <= 7; seq++ { // a hole for the bisection
		if err := stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(all[7:], readLines(t, nc, &jetstream.ReadOptions{After: at(2, 0)})); diff != "" {
		t.Errorf("Read after a deleted position (-want +got):\n%s", diff)
	}
}

func TestReadFollows(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 2)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lines []string
	var last error
	for m, err := range jetstream.Read(ctx, nc, "CDC_SHOP", &jetstream.ReadOptions{Follow: true}) {
		if last = err; err != nil {
			break
		}
		lines = append(lines, line(&m))
		switch m.Sequence {
		case 2:
			store(t, f, []*listeners.Batch{transaction(2, 2)})
		case 4:
			cancel()
		}
	}
	if diff := cmp.Diff(stored([]*listeners.Batch{transaction(1, 2), transaction(2, 2)}), lines); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("Read after its context = %v, want context.Canceled", last)
	}
}

func TestReadOfNoStream(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	n := 0
	for _, err := range jetstream.Read(t.Context(), nc, "CDC_SHOP", nil) {
		if n++; err == nil {
			t.Error("Read of a stream that is not there = nil, want an error")
		}
	}
	if n != 1 {
		t.Errorf("Read yielded %d times, want once", n)
	}
}

func TestReadOfForeignMessage(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(1, 1)})
	js := natstest.JetStream(t, s)
	for range 2 {
		if _, err := js.Publish(t.Context(), "cdc.shop.hello", []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	good, bad := 0, 0
	for m, err := range jetstream.Read(t.Context(), nc, "CDC_SHOP", nil) {
		switch {
		case err == nil:
			good++
		case m.Subject == "cdc.shop.hello" && m.Sequence > 1 && string(m.Body) == "hello":
			bad++
		default:
			t.Errorf("Read = %+v, %v", m, err)
		}
	}
	if good != 1 || bad != 2 {
		t.Errorf("Read yielded %d events and %d other messages, want 1 and 2", good, bad)
	}
}
