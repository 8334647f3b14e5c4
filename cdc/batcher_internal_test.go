package cdc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/listeners"
)

var seats = msgRelation(1, "seats", 'd', "*id")

// seatTx is a transaction that inserts seats 1 to n.
func seatTx(commit uint64, n int) [][]byte {
	tx := [][]byte{msgBegin(commit, 1), seats}
	for i := range n {
		tx = append(tx, msgInsert(1, fmt.Sprint(i+1)))
	}
	return append(tx, msgCommit(commit, commit+8))
}

// seatBytes is what an event of seatTx counts.
var seatBytes = len(msgInsert(1, "1")) + eventOverhead

func TestALargeTransactionComesInParts(t *testing.T) {
	for name, tc := range map[string]struct {
		maxBytes int
		want     []string
	}{
		"all fit": {5 * seatBytes, []string{"first last 1 2 3 4 5"}},
		// A batch is full when it has reached the size, and goes when one more comes.
		"the last one fits, just": {4*seatBytes + 1, []string{"first last 1 2 3 4 5"}},
		"one too many":            {4 * seatBytes, []string{"first 1 2 3 4", "last 5"}},
		"two by two":              {2 * seatBytes, []string{"first 1 2", "3 4", "last 5"}},
		"one by one":              {1, []string{"first 1", "2", "3", "4", "last 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, tc.maxBytes)
			d.send(seatTx(100, 5)...)
			d.send(seatTx(200, 1)...)
			want := append(slices.Clone(tc.want), "first last 1")
			if diff := cmp.Diff(want, d.parts()); diff != "" {
				t.Errorf("parts (-want +got):\n%s", diff)
			}
			for _, b := range d.batches {
				if n := len(b.Events); b.Size != n*seatBytes {
					t.Errorf("a batch of %d events has size %d, want %d", n, b.Size, n*seatBytes)
				}
			}
		})
	}
}

// parts are the batches with the keys of their events.
func (d *decoding) parts() []string {
	var out []string
	for _, b := range d.batches {
		var words []string
		if b.First {
			words = append(words, "first")
		}
		if b.Last {
			words = append(words, "last")
		}
		for i := range b.Events {
			words = append(words, b.Events[i].Key().String())
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

func TestNothingIsEmittedTwice(t *testing.T) {
	five := seatTx(100, 5) // its rows are messages 2 to 6
	for name, tc := range map[string]struct {
		maxBytes int
		before   int // messages of the transaction before the connection broke
		after    func(*decoding)
		want     []string
	}{
		"after the commit":                      {whole, 8, nil, []string{"first last 1 2 3 4 5"}},
		"after the commit, parts":               {2 * seatBytes, 8, nil, []string{"first 1 2", "3 4", "last 5"}},
		"before the commit, nothing emitted":    {whole, 7, nil, []string{"first last 1 2 3 4 5"}},
		"before a row, nothing emitted":         {whole, 4, nil, []string{"first last 1 2 3 4 5"}},
		"before the first row":                  {whole, 1, nil, []string{"first last 1 2 3 4 5"}},
		"after one part":                        {2 * seatBytes, 5, nil, []string{"first 1 2", "3 4", "last 5"}},
		"after one part and a pending row":      {2 * seatBytes, 6, nil, []string{"first 1 2", "3 4", "last 5"}},
		"before the commit, a last row pending": {2 * seatBytes, 7, nil, []string{"first 1 2", "3 4", "last 5"}},
		"after one part, with larger parts then": {
			2 * seatBytes, 5, func(d *decoding) { d.batcher.maxBytes = whole }, []string{"first 1 2", "last 3 4 5"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, tc.maxBytes)
			d.send(seatTx(50, 1)...)
			d.send(five[:tc.before]...)
			d.connect()
			if tc.after != nil {
				tc.after(d)
			}
			d.send(seatTx(50, 1)...)
			d.send(five...)
			d.connect()
			d.send(five...)
			d.send(seatTx(200, 1)...)
			want := slices.Concat([]string{"first last 1"}, tc.want, []string{"first last 1"})
			if diff := cmp.Diff(want, d.parts()); diff != "" {
				t.Errorf("parts (-want +got):\n%s", diff)
			}
			if got := d.confirmed(listeners.Position{Epoch: 7, Commit: 100, Index: 4}); got != 58 {
				t.Errorf("without the last event of a transaction %s may be confirmed, want 0/3A", got)
			}
			if got := d.confirmed(listeners.Position{Epoch: 7, Commit: 100, Index: 5}); got != 108 {
				t.Errorf("with the last event of a transaction %s may be confirmed, want 0/6C", got)
			}
		})
	}
}

func TestABrokenConnectionLeavesNothingOpen(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(seatTx(100, 3)[:4]...)
	d.connect()
	if d.batcher.pending() {
		t.Error("events of a broken connection are pending")
	}
	d.tracker.nothing(90, false)
	if got := d.confirmed(listeners.Position{}); got != 90 {
		t.Errorf("after a keepalive on the new connection %s may be confirmed, want 0/5A", got)
	}
}

func TestRelationsBelongToAConnection(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgBegin(100, 1), seats)
	d.connect()
	d.send(msgBegin(100, 1))
	if err := d.try(msgInsert(1, "1")); err == nil {
		t.Error("a row of a table that this connection has not described is accepted")
	}
}

// TestRecordsStay checks rows after the blocks that they lie in were replaced
// many times.
func TestRecordsStay(t *testing.T) {
	const tables, rows = 40, 10_000
	d := newDecoding(t, 64<<10)
	random := rand.New(rand.NewPCG(1, 2))
	d.send(msgBegin(100, 1))
	for id := range uint32(tables) {
		columns := []string{"*c0"}
		for i := range int(id) * 7 {
			columns = append(columns, fmt.Sprintf("c%d", i+1))
		}
		d.send(msgRelation(id, fmt.Sprintf("t%d", id), 'f', columns...))
	}
	type tuple struct{ before, after []string }
	var want []tuple
	for i := range rows {
		id := uint32(random.IntN(tables))
		if i%100 != 0 {
			id %= 4 // mostly narrow ones
		}
		var w tuple
		for range 1 + id*7 {
			w.before = append(w.before, fmt.Sprintf("%d-%x", i, random.Uint32()))
			switch random.IntN(4) {
			case 0:
				w.after = append(w.after, colToast)
			case 1:
				w.after = append(w.after, colNull)
			default:
				w.after = append(w.after, fmt.Sprintf("%d+%x", i, random.Uint32()))
			}
		}
		d.send(msgUpdate(id, 'O', w.before, w.after))
		for c, v := range w.after {
			if v == colToast {
				w.after[c] = w.before[c]
			}
		}
		want = append(want, w)
	}
	d.send(msgCommit(100, 108))

	n := 0
	for _, b := range d.batches {
		for i := range b.Events {
			e := &b.Events[i]
			if e.Position.Index != uint32(n+1) {
				t.Fatalf("event %d has index %d", n+1, e.Position.Index)
			}
			if got := texts(e.Before); !slices.Equal(got, want[n].before) {
				t.Fatalf("event %d has Before %q, want %q", n+1, got, want[n].before)
			}
			if got := texts(e.After); !slices.Equal(got, want[n].after) {
				t.Fatalf("event %d has After %q, want %q", n+1, got, want[n].after)
			}
			n++
		}
	}
	if n != rows || len(d.batches) < 10 {
		t.Errorf("%d events in %d batches, want %d in many", n, len(d.batches), rows)
	}
}

func texts(r listeners.Record) []string {
	var out []string
	for _, v := range r.All() {
		if v.IsNull() {
			out = append(out, colNull)
			continue
		}
		out = append(out, v.String())
	}
	return out
}

// TestABatchKeepsItsEvents: what is decoded later, or thrown away, is not
// written over what was emitted.
func TestABatchKeepsItsEvents(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(seatTx(100, 3)...)
	b := d.batches[0]
	if len(b.Events) != cap(b.Events) {
		t.Errorf("a batch of %d events has room for %d: appending to it would write into the next", len(b.Events), cap(b.Events))
	}
	d.send(msgBegin(200, 1), msgInsert(1, "9"))
	d.connect()
	d.send(seatTx(300, 600)...)
	if diff := cmp.Diff("first last 1 2 3", d.parts()[0]); diff != "" {
		t.Errorf("first batch (-want +got):\n%s", diff)
	}
}

func TestASnapshotWithoutRowsIsABatch(t *testing.T) {
	d := newDecoding(t, whole)
	b := d.batcher
	b.begin(listeners.Snapshot, listeners.CauseSnapshot, 99, listeners.Tx{Time: txTime})
	for _, err := range []error{
		b.mark(t.Context(), listeners.Reset, 0), b.flush(t.Context(), true), b.mark(t.Context(), listeners.Live, 5),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, b := range d.batches {
		got = append(got, fmt.Sprintf("%s %d.%d first %t last %t, %d events at %d", b.Kind, b.Position.Commit, b.Position.Index,
			b.First, b.Last, len(b.Events), b.Tx.Time.Unix()))
	}
	want := []string{
		"reset 99.0 first true last true, 0 events at 1772600767",
		"snapshot 99.0 first true last true, 0 events at 1772600767",
		"live 99.5 first true last true, 0 events at 1772600767",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

// TestRowsCostNoAllocation: blocks are shared by many rows.
func TestRowsCostNoAllocation(t *testing.T) {
	const rows = 2000
	messages := benchTx(rows)
	d := newDecoding(t, whole)
	d.batcher.emit = func(context.Context, *listeners.Batch) error { return nil }
	allocs := testing.AllocsPerRun(20, func() { d.send(messages...); d.batcher.last = listeners.Position{}; d.connect() })
	if perRow := allocs / rows; perRow > 0.1 {
		t.Errorf("%.3f allocations for a row, want at most 0.1", perRow)
	}
}

// A listener that reads a number and a text pays for the text.
func TestReadingTwoColumnsCostsOneAllocation(t *testing.T) {
	const rows = 2000
	messages := benchTx(rows)
	d := newDecoding(t, whole)
	var id int64
	var total string
	d.batcher.emit = func(_ context.Context, b *listeners.Batch) error {
		for i := range b.Events {
			if err := b.Events[i].After.Get("id").Scan(&id); err != nil {
				return err
			}
			total = b.Events[i].After.Get("total").String()
		}
		return nil
	}
	allocs := testing.AllocsPerRun(20, func() { d.send(messages...); d.batcher.last = listeners.Position{}; d.connect() })
	if perRow := allocs / rows; perRow > 1.05 || id == 0 && total == "" {
		t.Errorf("%.3f allocations for a row, want 1", perRow)
	}
}

// benchTx inserts rows of seven columns.
func benchTx(rows int) [][]byte {
	tx := [][]byte{msgBegin(100, 1), msgRelation(1, "orders", 'd', "*id", "customer", "total", "quantity", "paid", "detail", "at")}
	for i := range rows {
		tx = append(tx, msgInsert(1, fmt.Sprint(1_000_000+i), "customer 9", "12.34", "3", "t",
			`{"gift": true, "note": "fragile"}`, "2026-01-31 22:04:36.730432+00"))
	}
	return append(tx, msgCommit(100, 108))
}

func BenchmarkDecoderRow(b *testing.B) {
	messages := benchTx(1000)
	d := newDecoding(b, 4<<20)
	d.batcher.emit = func(context.Context, *listeners.Batch) error { return nil }
	b.ReportAllocs()
	for n := 0; n < b.N; n += 1000 {
		d.batcher.last = listeners.Position{}
		d.connect()
		d.send(messages...)
	}
}

// modelTx is a transaction of the model: its messages, and what comes out.
type modelTx struct {
	commit, end uint64
	messages    [][]byte
	lines       []string
	last        listeners.Position // of its last event, zero without any
}

// genHistory draws transactions with rows of four tables, one of which nobody
// asked for.
func genHistory(rt *rapid.T) []modelTx {
	history := make([]modelTx, rapid.IntRange(1, 8).Draw(rt, "transactions"))
	lsn := uint64(1000)
	for i := range history {
		tx := &history[i]
		tx.commit = lsn + 8*rapid.Uint64Range(0, 3).Draw(rt, "gap") // 0: it begins where the last one ends
		tx.end = tx.commit + 8
		lsn = tx.end
		index := 0
		event := func(table int, format string, args ...any) {
			index++
			if table != 2 {
				tx.last = listeners.Position{Epoch: 7, Commit: tx.commit, Index: uint32(index)}
				tx.lines = append(tx.lines, fmt.Sprintf("%d.%d ", tx.commit, index)+fmt.Sprintf(format, args...))
			}
		}
		tx.messages = append(tx.messages, msgBegin(tx.commit, uint32(i+1)))
		for id, name := range []string{"a", "b", "other", "c"} {
			tx.messages = append(tx.messages, msgRelation(uint32(id), name, 'd', "*id", "v"))
		}
		for range rapid.IntRange(0, 12).Draw(rt, "events") {
			id := rapid.IntRange(0, 3).Draw(rt, "table")
			name := []string{"a", "b", "other", "c"}[id]
			key := fmt.Sprintf("%d-%d", i, index)
			long := strings.Repeat("v", rapid.SampledFrom([]int{0, 1, 300}).Draw(rt, "size"))
			switch rapid.IntRange(0, 3).Draw(rt, "op") {
			case 0:
				tx.messages = append(tx.messages, msgInsert(uint32(id), key, long))
				event(id, `create public.%s/%s after {"id":"%s","v":"%s"}`, name, key, key, long)
			case 1:
				tx.messages = append(tx.messages, msgUpdate(uint32(id), 'N', nil, []string{key, colToast}))
				event(id, `update public.%s/%s after {"id":"%s"} without [v]`, name, key, key)
			case 2:
				tx.messages = append(tx.messages, msgDelete(uint32(id), 'K', key, colNull))
				event(id, `delete public.%s/%s oldkey {"id":"%s"} without [v]`, name, key, key)
			default:
				tx.messages = append(tx.messages, msgTruncate(uint32(id), 2, 3))
				event(id, `truncate public.%s/`, name)
				event(2, "")
				event(3, `truncate public.c/`)
			}
		}
		tx.messages = append(tx.messages, msgCommit(tx.commit, tx.end))
	}
	return history
}

// TestEveryEventOnceInOrder breaks connections anywhere. Each one begins again
// with a position that was confirmed before, as the server does.
func TestEveryEventOnceInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := genHistory(rt)
		d := newDecoding(rt, rapid.SampledFrom([]int{1, 400, 1000, whole}).Draw(rt, "max bytes"))
		var (
			confirmed LSN
			stored    listeners.Position
			handled   int // batches
		)
		store := func() {
			if handled = rapid.IntRange(handled, len(d.batches)).Draw(rt, "stored"); handled > 0 {
				stored = d.batches[handled-1].Position
			}
			before := confirmed
			if confirmed = d.confirmed(stored); confirmed < before {
				rt.Fatalf("confirmed goes back from %s to %s", before, confirmed)
			}
			for _, tx := range history {
				// The server leaves out what commits before that.
				if LSN(tx.commit) < confirmed && tx.last.Compare(stored) > 0 {
					rt.Fatalf("confirmed %s with %s stored, which skips the transaction at %d", confirmed, stored, tx.commit)
				}
			}
		}
		known := []LSN{0} // what the server may know of confirmed
		for connections := rapid.IntRange(0, 5).Draw(rt, "breaks"); ; connections-- {
			from := rapid.SampledFrom(known).Draw(rt, "from")
			d.connect()
			left := -1
			if connections > 0 {
				left = rapid.IntRange(0, 40).Draw(rt, "messages")
			}
			for _, tx := range history {
				if LSN(tx.commit) < from {
					continue
				}
				d.tracker.nothing(LSN(tx.commit), false) // a keepalive: all before is sent
				for _, m := range tx.messages {
					if left == 0 {
						break
					}
					left--
					d.send(m)
				}
				if left == 0 {
					break
				}
				if rapid.Bool().Draw(rt, "status") {
					store()
					known = append(known, confirmed)
				}
			}
			if connections == 0 {
				break
			}
		}
		d.checkModel(rt, history)
		if got := d.confirmed(everything); uint64(got) != history[len(history)-1].end {
			rt.Fatalf("with everything stored %s may be confirmed, want %d", got, history[len(history)-1].end)
		}
	})
}

// checkModel expects the whole history once, in order, in parts that say so.
func (d *decoding) checkModel(rt *rapid.T, history []modelTx) {
	var want, got []string
	for _, tx := range history {
		want = append(want, tx.lines...)
	}
	var inside uint64 // the transaction whose last part has not come
	for _, b := range d.batches {
		if len(b.Events) == 0 || b.Position != b.Events[len(b.Events)-1].Position {
			rt.Fatalf("a batch of %d events is at %s", len(b.Events), b.Position)
		}
		if b.First != (inside == 0) || (inside != 0 && inside != b.Position.Commit) {
			rt.Fatalf("the batch at %s says first %t inside of transaction %d", b.Position, b.First, inside)
		}
		if inside = b.Position.Commit; b.Last {
			inside = 0
		}
		for i := range b.Events {
			got = append(got, eventLine(&b.Events[i]))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("events (-want +got):\n%s", diff)
	}
	if inside != 0 {
		rt.Fatalf("transaction %d has no last part", inside)
	}
}
