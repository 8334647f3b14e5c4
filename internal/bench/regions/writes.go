package main

import (
	"errors"
	"fmt"
	"sync"
)

// put measures transactions of one write, with our region heard by more and
// more listeners. A round ends when all of them have heard it to its end.
func (b *bench) put() (err error) {
	stores, closeAll, err := b.stores(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	var lines []line
	for _, n := range []int{0, 1, 10, 100} {
		l := line{what: fmt.Sprintf("put, %d listeners", n)}
		for _, s := range stores[:len(stores)-1] {
			l.runs = append(l.runs, b.puts(s, 1))
		}
		r, err := openRegion(false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.close()) }()
		if err := fill(r, b.keys); err != nil {
			return err
		}
		if err := r.listen(n); err != nil {
			return err
		}
		puts := b.puts(r, 1)
		l.runs = append(l.runs, func(n int) error { return errors.Join(puts(n), r.heard()) })
		lines = append(lines, l)
	}
	return b.table("Put; only the region has listeners", lines)
}

// group measures writers that put at the same time.
func (b *bench) group() (err error) {
	stores, closeAll, err := b.stores(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	var lines []line
	for _, writers := range []int{1, 2, 4, 8, 16} {
		l := line{what: fmt.Sprintf("put by %d writers", writers)}
		for _, s := range stores {
			l.runs = append(l.runs, b.puts(s, writers))
		}
		lines = append(lines, l)
	}
	return b.table("Put by several writers at once", lines)
}

// puts returns a runner that updates entries, each in a transaction of its own.
func (b *bench) puts(s store, writers int) runner {
	next := 0
	return func(n int) error {
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for w := range writers {
			from := next
			wg.Go(func() {
				for i := from + w; i < from+n; i += writers {
					k := b.keys[i%len(b.keys)]
					if err := s.put(k, seat{Coach: 1, Class: "second", Price: i}); err != nil {
						errs[w] = err
						return
					}
				}
			})
		}
		wg.Wait()
		next += n
		return errors.Join(errs...)
	}
}

// putAll measures transactions of 1,000 writes, by the write.
func (b *bench) putAll() (err error) {
	stores, closeAll, err := b.stores(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	l := line{what: "PutAll of 1,000, per entry"}
	for _, s := range stores {
		next := 0
		l.runs = append(l.runs, func(n int) error {
			for done := 0; done < n; done += 1000 {
				at := next % len(b.keys)
				if err := s.putAll(b.keys[at:at+1000], seatOf); err != nil {
					return err
				}
				next += 1000
			}
			return nil
		})
	}
	return b.table("Put 1,000 entries in one transaction", []line{l})
}
