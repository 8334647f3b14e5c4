package jetstream_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

var seats = listeners.NewSchema("shop", "public", "seats", []listeners.Column{
	{Name: "id", Type: "bigint", Key: true}, {Name: "seat", Type: "text"},
})

// row is a listeners.Row with a number and a text.
type row struct {
	id   []byte
	seat string
}

func (r row) Schema() *listeners.Schema { return seats }

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

func seat(id int) listeners.Record {
	return listeners.NewRecord(row{id: []byte(strconv.Itoa(id)), seat: fmt.Sprintf("%02d%c", id%90, 'A'+rune(id%6))})
}

func wide(id, size int) listeners.Record {
	return listeners.NewRecord(row{id: []byte(strconv.Itoa(id)), seat: strings.Repeat("x", size)})
}

const epoch = 7

func at(commit uint64, index uint32) listeners.Position {
	return listeners.Position{Epoch: epoch, Commit: commit, Index: index}
}

// transaction returns a committed transaction that creates this many seats.
func transaction(commit uint64, events int) *listeners.Batch {
	b := &listeners.Batch{
		Kind: listeners.Changes, Source: "shop", First: true, Last: true,
		Tx:       listeners.Tx{ID: commit, Time: time.Unix(1_800_000_000, 0).Add(time.Duration(commit) * time.Millisecond)},
		Position: at(commit, uint32(max(events-1, 0))),
	}
	for i := range events {
		b.Events = append(b.Events, listeners.Event{
			Op: listeners.Create, Schema: seats, Position: at(commit, uint32(i)), After: seat(int(commit)*1000 + i),
		})
	}
	return b
}

// parts cuts a transaction in two.
func parts(b *listeners.Batch, n int) []*listeners.Batch {
	first, second := *b, *b
	first.Events, second.Events = b.Events[:n], b.Events[n:]
	first.Last, second.First = false, false
	first.Position = b.Events[n-1].Position
	return []*listeners.Batch{&first, &second}
}

func reset(commit uint64) *listeners.Batch {
	return &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: at(commit, 0), First: true, Last: true}
}

func snapshot(commit uint64, events int) *listeners.Batch {
	b := transaction(commit, events)
	b.Kind, b.Tx.ID = listeners.Snapshot, 0
	for i := range b.Events {
		b.Events[i].Op, b.Events[i].Cause = listeners.Read, listeners.CauseSnapshot
		b.Events[i].Position.Index++ // the reset has index 0
	}
	b.Position.Index++
	return b
}

func live(commit uint64) *listeners.Batch {
	return &listeners.Batch{Kind: listeners.Live, Source: "shop", Position: at(commit, 1<<20), First: true, Last: true}
}

// history returns batches of every kind with this many events at least.
func history(r *rand.Rand, events int) []*listeners.Batch {
	batches := []*listeners.Batch{reset(10), snapshot(10, 100), live(10)}
	commit := uint64(10)
	for n := 100; n < events; {
		commit += 1 + r.Uint64N(3)
		switch r.IntN(20) {
		case 0:
			batches = append(batches, transaction(commit, 0))
		case 1:
			b := transaction(commit, 2+r.IntN(400))
			n += len(b.Events)
			batches = append(batches, parts(b, 1+r.IntN(len(b.Events)-1))...)
		case 2:
			b := snapshot(commit, 20)
			n += len(b.Events)
			batches = append(batches, reset(commit), b, live(commit))
		default:
			b := transaction(commit, 1+r.IntN(40))
			n += len(b.Events)
			batches = append(batches, b)
		}
	}
	return batches
}

// stored returns what the stream must hold of a history, a line for each
// message.
func stored(batches []*listeners.Batch) []string {
	var lines []string
	for _, b := range batches {
		if b.Kind == listeners.Reset && len(lines) > 0 {
			lines = append(lines, "reset "+b.Position.String())
		}
		for i := range b.Events {
			e := &b.Events[i]
			line := fmt.Sprintf("%s %s %s %s", e.Op, e.Position, e.Key(), e.After.AppendJSON(nil))
			if b.Last && i == len(b.Events)-1 {
				line += " end"
			}
			lines = append(lines, line)
		}
	}
	return lines
}
