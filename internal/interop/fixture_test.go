package interop_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

const patience = time.Minute

var seats = listeners.NewSchema("shop", "public", "seats", []listeners.Column{
	{Name: "seat", Type: "text", Key: true}, {Name: "price", Type: "numeric"},
})

// row is a seat and its price.
type row struct{ seat, price string }

func (row) Schema() *listeners.Schema { return seats }

func (row) State(int) listeners.State { return listeners.Present }

func (r row) Text(i int) []byte {
	if i == 0 {
		return []byte(r.seat)
	}
	return []byte(r.price)
}

func (r row) AppendJSON(dst []byte, i int) []byte {
	if i == 0 {
		return strconv.AppendQuote(dst, r.seat)
	}
	return append(dst, r.price...)
}

func (row) Scan(int, any) error { return errors.ErrUnsupported }

func seat(name, price string) listeners.Record { return listeners.NewRecord(row{name, price}) }

// history is a transaction with one event of each kind, and one with a key that
// headers do not take as it is.
func history() []*listeners.Batch {
	at := func(commit uint64, index uint32) listeners.Position {
		return listeners.Position{Epoch: 7, Commit: commit, Index: index}
	}
	batch := func(commit uint64, events ...listeners.Event) *listeners.Batch {
		for i := range events {
			events[i].Schema, events[i].Position = seats, at(commit, uint32(i))
		}
		return &listeners.Batch{
			Kind: listeners.Changes, Source: "shop", First: true, Last: true, Events: events,
			Tx:       listeners.Tx{ID: 700 + commit, Time: time.Unix(1_800_000_000, 123_456_000).UTC()},
			Position: at(commit, uint32(len(events)-1)),
		}
	}
	return []*listeners.Batch{
		batch(
			1,
			listeners.Event{Op: listeners.Create, After: seat("10E", "29.90")},
			listeners.Event{Op: listeners.Update, Before: seat("10E", "29.90"), After: seat("10E", "12345678901234567890.50")},
			listeners.Event{Op: listeners.Delete, Before: seat("10E", "0")},
		),
		batch(2, listeners.Event{Op: listeners.Create, After: seat("Größe 1/2 % \"x\"", "1")}),
	}
}

// frames are what the events of the history are on any wire. Each is valid for
// ever.
func frames() []sinks.Frame {
	var all []sinks.Frame
	for _, b := range history() {
		e := sinks.NewEncoder(0)
		for i := range b.Events {
			f := *e.Encode(b, i)
			f.Body = append([]byte(nil), f.Body...)
			all = append(all, f)
		}
	}
	return all
}

// A firehose is what both brokers' have.
type firehose interface {
	OnBatch(ctx context.Context, b *listeners.Batch) error
	Flush(ctx context.Context) error
}

func store(t testing.TB, f firehose) {
	t.Helper()
	for _, b := range history() {
		if err := f.OnBatch(t.Context(), b); err != nil {
			t.Fatalf("OnBatch(%s) = %v", b.Position, err)
		}
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatalf("Flush = %v", err)
	}
}

// onJetStream opens a firehose on a server of its own.
func onJetStream(t testing.TB) (*natstest.Server, *sinks.Firehose) {
	t.Helper()
	s := natstest.Run(t)
	f, err := jetstream.New(natstest.Connect(t, s), "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return s, f
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	ctx := within(t)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("not within %s: %w", patience, err))
		case <-ticker.C:
		}
	}
}
