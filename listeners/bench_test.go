package listeners_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

// One batch from the writer through the feed to each listener.
func BenchmarkFeed(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprintf("subscriptions=%d", n), func(b *testing.B) {
			f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1000})
			last := at(uint64(b.N))
			done := make(chan struct{}, n)
			for range n {
				subscribe(b, f, "s", listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
					if batch.Position == last {
						done <- struct{}{}
					}
					return nil
				}), nil, nil)
			}
			batches := make([]listeners.Batch, b.N) // the writer's allocation is not the feed's
			for i := range batches {
				batches[i] = listeners.Batch{Position: at(uint64(i + 1)), First: true, Last: true, Size: 1}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range batches {
				if err := f.Reserve(b.Context()); err != nil {
					b.Fatal(err)
				}
				f.Append(&batches[i])
			}
			for range n {
				<-done
			}
		})
	}
}

// What a filter costs for a transaction of 100 events.
func BenchmarkFilter(b *testing.B) {
	for name, other := range map[string]*listeners.Schema{"whole": seats, "half": trains} {
		b.Run(name, func(b *testing.B) {
			f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1000})
			subscribe(b, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil }), only("public.seats"), nil)
			events := make([]listeners.Event, 100)
			for i := range events {
				events[i] = created([]*listeners.Schema{seats, other}[i%2], i)
			}
			b.ReportAllocs()
			for c := uint64(1); b.Loop(); c++ {
				if err := f.Reserve(b.Context()); err != nil {
					b.Fatal(err)
				}
				f.Append(&listeners.Batch{Events: events, Position: at(c), First: true, Last: true, Size: 1})
			}
		})
	}
}

func BenchmarkHandlers(b *testing.B) {
	type priced struct {
		ID    int
		Price int
	}
	note, value := "window", Seat{ID: 1}
	for name, e := range map[string]listeners.Event{
		"columns": {Op: listeners.Update, Schema: seats, Before: seat(1, "A", 10, note), After: seat(1, "A", 20, note)},
		"native": {
			Op: listeners.Update, Schema: seats,
			Before: listeners.NewRecord(native{row{seats, []any{1, "A", 10, note}}, &value}),
			After:  listeners.NewRecord(native{row{seats, []any{1, "A", 20, note}}, &value}),
		},
	} {
		b.Run(name, func(b *testing.B) {
			total := 0
			h := listeners.Handlers[Seat]{OnUpdate: func(_ context.Context, c listeners.Change[Seat]) error {
				total += c.After.Price
				return nil
			}}
			one := batch(1, e)
			b.ReportAllocs()
			for b.Loop() {
				if err := h.OnBatch(b.Context(), one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("two of four columns", func(b *testing.B) {
		h := listeners.Handlers[priced]{OnCreate: func(context.Context, listeners.Change[priced]) error { return nil }}
		one := batch(1, listeners.Event{Op: listeners.Create, Schema: seats, After: seat(1, "A", 10, note)})
		b.ReportAllocs()
		for b.Loop() {
			if err := h.OnBatch(b.Context(), one); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPositionAppend(b *testing.B) {
	p := listeners.Position{Epoch: 7_000_000_000_000_000_000, Commit: 0x16B374D848, Index: 2}
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = p.Append(dst[:0])
	}
}
