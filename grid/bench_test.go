package grid_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-memdb"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// The benchmarks set a region beside go-memdb as it comes, with an indexer
// that needs no reflection either.

const benchEntries = 100_000

type benchValue struct {
	Class string
	Price int
}

func benchKeys() []string {
	keys := make([]string, benchEntries)
	for i := range keys {
		keys[i] = fmt.Sprintf("seat-%06d", i*7919%benchEntries)
	}
	return keys
}

type bareEntry struct {
	key string
	val benchValue
}

type bareIndexer struct{}

func (bareIndexer) FromObject(obj any) (bool, []byte, error) {
	return true, append([]byte(obj.(*bareEntry).key), 0), nil
}

func (bareIndexer) FromArgs(args ...any) ([]byte, error) {
	return append([]byte(args[0].(string)), 0), nil
}

func newBare(b *testing.B, keys []string) *memdb.MemDB {
	b.Helper()
	db, err := memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		"seats": {Name: "seats", Indexes: map[string]*memdb.IndexSchema{"id": {Name: "id", Unique: true, Indexer: bareIndexer{}}}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	for i, k := range keys {
		putBare(b, db, k, i)
	}
	return db
}

func putBare(b *testing.B, db *memdb.MemDB, k string, i int) {
	b.Helper()
	txn := db.Txn(true)
	if err := txn.Insert("seats", &bareEntry{k, benchValue{"first", i}}); err != nil {
		b.Fatal(err)
	}
	txn.Commit()
}

func newSeats(b *testing.B, keys []string) *grid.Region[string, benchValue] {
	b.Helper()
	g := grid.New("bench", nil)
	b.Cleanup(func() { _ = g.Close(context.WithoutCancel(b.Context())) })
	r, err := grid.Open[string, benchValue](g, "seats", nil)
	if err != nil {
		b.Fatal(err)
	}
	for i, k := range keys {
		if _, err := r.Put(b.Context(), k, benchValue{"first", i}); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

func BenchmarkPut(b *testing.B) {
	keys := benchKeys()
	b.Run("memdb", func(b *testing.B) {
		db := newBare(b, keys)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			putBare(b, db, keys[i%benchEntries], i)
			i++
		}
	})
	for _, n := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("region/listeners=%d", n), func(b *testing.B) {
			r := newSeats(b, keys)
			for range n {
				_, err := r.Subscribe("bench", listeners.Handlers[benchValue]{
					OnUpdate: func(context.Context, listeners.Change[benchValue]) error { return nil },
				}, nil)
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := r.Put(b.Context(), keys[i%benchEntries], benchValue{"first", i}); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	keys := benchKeys()
	b.Run("memdb", func(b *testing.B) {
		db := newBare(b, keys)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			obj, err := db.Txn(false).First("seats", "id", keys[i%benchEntries])
			if err != nil || obj == nil {
				b.Fatalf("First() = %v, %v", obj, err)
			}
			i++
		}
	})
	b.Run("memdb/shared txn", func(b *testing.B) {
		txn := newBare(b, keys).Txn(false)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			obj, err := txn.First("seats", "id", keys[i%benchEntries])
			if err != nil || obj == nil {
				b.Fatalf("First() = %v, %v", obj, err)
			}
			i++
		}
	})
	b.Run("region", func(b *testing.B) {
		r := newSeats(b, keys)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if _, ok := r.Get(keys[i%benchEntries]); !ok {
				b.Fatal("Get() found nothing")
			}
			i++
		}
	})
}

func BenchmarkAll(b *testing.B) {
	keys := benchKeys()
	b.Run("memdb", func(b *testing.B) {
		db := newBare(b, keys)
		b.ReportAllocs()
		for b.Loop() {
			it, err := db.Txn(false).Get("seats", "id")
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for obj := it.Next(); obj != nil; obj = it.Next() {
				if e, ok := obj.(*bareEntry); ok && e.key != "" && e.val.Price >= 0 {
					n++
				}
			}
			if n != benchEntries {
				b.Fatalf("%d entries", n)
			}
		}
	})
	b.Run("region", func(b *testing.B) {
		r := newSeats(b, keys)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for k, v := range r.All() {
				if k != "" && v.Price >= 0 {
					n++
				}
			}
			if n != benchEntries {
				b.Fatalf("%d entries", n)
			}
		}
	})
}

// BenchmarkPutFrom sets writers that go together into one transaction
// beside writers that each make their own.
func BenchmarkPutFrom(b *testing.B) {
	keys := benchKeys()
	run := func(b *testing.B, writers int, put func(i int)) {
		b.Helper()
		b.ReportAllocs()
		var next atomic.Int64
		var wg sync.WaitGroup
		b.ResetTimer()
		for range writers {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
					put(int(i))
				}
			})
		}
		wg.Wait()
	}
	for _, writers := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("memdb/writers=%d", writers), func(b *testing.B) {
			db := newBare(b, keys)
			run(b, writers, func(i int) { putBare(b, db, keys[i%benchEntries], i) })
		})
		b.Run(fmt.Sprintf("region/writers=%d", writers), func(b *testing.B) {
			r := newSeats(b, keys)
			run(b, writers, func(i int) {
				if _, err := r.Put(b.Context(), keys[i%benchEntries], benchValue{"first", i}); err != nil {
					b.Error(err)
				}
			})
		})
	}
}
