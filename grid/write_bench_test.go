package grid_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/rowcall/rowcall/grid"
)

// Writers that put at once share commits; one op is a put.
func BenchmarkPutByWriters(b *testing.B) {
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("seat-%06d", i)
	}
	for _, writers := range []int{1, 2, 4, 16} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			g := grid.New("bench", nil)
			defer func() { _ = g.Close(b.Context()) }()
			r, err := grid.Open[string, seat](g, "seats", nil)
			if err != nil {
				b.Fatal(err)
			}
			for i, k := range keys {
				if _, err := r.Put(b.Context(), k, seat{Price: i}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := w; i < b.N; i += writers {
						if _, err := r.Put(b.Context(), keys[i*7919%len(keys)], seat{Price: i}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
