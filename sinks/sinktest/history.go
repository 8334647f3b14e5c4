package sinktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Database is the source of all batches.
const Database = "shop"

// Seats is the schema of all events.
var Seats = listeners.NewSchema(Database, "public", "seats", []listeners.Column{
	{Name: "id", Type: "bigint", Key: true}, {Name: "seat", Type: "text"},
})

// row is a listeners.Row with a number and a text.
type row struct {
	id   []byte
	seat string
}

func (r row) Schema() *listeners.Schema { return Seats }

func (r row) State(int) listeners.State { return listeners.Present }

func (r row) Text(i int) []byte {
	if i == 0 {
		return r.id
	}
	return []byte(r.seat)
}

func (r row) AppendJSON(dst []byte, i int) []byte {
	if i == 0 {
		return append(dst, r.id...)
	}
	return strconv.AppendQuote(dst, r.seat)
}

func (r row) Scan(int, any) error { return errors.New("not used here") }

// Seat is a row.
func Seat(id int) listeners.Record {
	return listeners.NewRecord(row{id: []byte(strconv.Itoa(id)), seat: fmt.Sprintf("%02d%c", id%90, 'A'+rune(id%6))})
}

// Wide is a row with a text of this many bytes.
func Wide(id, size int) listeners.Record {
	return listeners.NewRecord(row{id: []byte(strconv.Itoa(id)), seat: strings.Repeat("x", size)})
}

// Epoch is that of all positions.
const Epoch = 7

// At is a position.
func At(commit uint64, index uint32) listeners.Position {
	return listeners.Position{Epoch: Epoch, Commit: commit, Index: index}
}

// Transaction is one that creates this many seats. Every tenth event is an
// update of the first seat instead.
func Transaction(commit uint64, events int) *listeners.Batch {
	b := &listeners.Batch{
		Kind: listeners.Changes, Source: Database, First: true, Last: true,
		Tx:       listeners.Tx{ID: commit, Time: time.Unix(1_800_000_000, 0).Add(time.Duration(commit) * time.Millisecond)},
		Position: At(commit, uint32(max(events-1, 0))),
	}
	for i := range events {
		e := listeners.Event{
			Op: listeners.Create, Schema: Seats, Position: At(commit, uint32(i)),
			After: Seat(int(commit)*1000 + i),
		}
		if i%10 == 9 {
			e.Op, e.After = listeners.Update, Seat(1)
		}
		b.Events = append(b.Events, e)
	}
	return b
}

// Parts cuts a transaction in two.
func Parts(b *listeners.Batch, n int) []*listeners.Batch {
	first, second := *b, *b
	first.Events, second.Events = b.Events[:n], b.Events[n:]
	first.Last, second.First = false, false
	first.Position = b.Events[n-1].Position
	return []*listeners.Batch{&first, &second}
}

// Reset is what a snapshot begins with.
func Reset(commit uint64) *listeners.Batch {
	return &listeners.Batch{Kind: listeners.Reset, Source: Database, Position: At(commit, 0), First: true, Last: true}
}

// Snapshot reads this many seats.
func Snapshot(commit uint64, events int) *listeners.Batch {
	b := Transaction(commit, events)
	b.Kind, b.Tx.ID = listeners.Snapshot, 0
	for i := range b.Events {
		b.Events[i].Op, b.Events[i].Cause = listeners.Read, listeners.CauseSnapshot
		b.Events[i].Position.Index++ // the reset has index 0
	}
	b.Position.Index++
	return b
}

// Live is what a snapshot ends with.
func Live(commit uint64) *listeners.Batch {
	return &listeners.Batch{Kind: listeners.Live, Source: Database, Position: At(commit, 1<<20), First: true, Last: true}
}

// Truncate empties the table.
func Truncate(commit uint64) *listeners.Batch {
	b := Transaction(commit, 1)
	b.Events[0].Op, b.Events[0].After = listeners.Truncate, listeners.Record{}
	return b
}

// History returns batches of every kind with this many events at least.
func History(r *rand.Rand, events int) []*listeners.Batch {
	const start = 10
	return continued(r, []*listeners.Batch{Reset(start), Snapshot(start, 100), Live(start)}, events-100)
}

// continued appends batches with this many events at least.
func continued(r *rand.Rand, batches []*listeners.Batch, events int) []*listeners.Batch {
	commit := batches[len(batches)-1].Position.Commit
	for n := 0; n < events; {
		commit += 1 + r.Uint64N(3)
		var next []*listeners.Batch
		switch r.IntN(20) {
		case 0:
			next = []*listeners.Batch{Transaction(commit, 0)}
		case 1:
			b := Transaction(commit, 2+r.IntN(400))
			next = Parts(b, 1+r.IntN(len(b.Events)-1))
		case 2:
			next = []*listeners.Batch{Reset(commit), Snapshot(commit, 20), Live(commit)}
		case 3:
			next = []*listeners.Batch{Truncate(commit)}
		default:
			next = []*listeners.Batch{Transaction(commit, 1+r.IntN(40))}
		}
		for _, b := range next {
			n += len(b.Events)
		}
		batches = append(batches, next...)
	}
	return batches
}

// Feed does what a subscription does.
func Feed(ctx context.Context, d listeners.Durable, batches []*listeners.Batch) error {
	for _, b := range batches {
		select {
		case <-d.Stalled():
			if err := d.Flush(ctx); err != nil {
				return fmt.Errorf("flush before %s: %w", b.Position, err)
			}
		default:
		}
		if err := d.OnBatch(ctx, b); err != nil {
			return fmt.Errorf("batch %s: %w", b.Position, err)
		}
	}
	return nil
}
