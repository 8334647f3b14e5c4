package main

import (
	"errors"
	"fmt"
)

// get measures look-ups by key.
func (b *bench) get() error {
	return b.read("Get", "get", false, func(s store) runner {
		next := 0
		return func(n int) error {
			for range n {
				next++
				if k := b.keys[next%len(b.keys)]; !has(s, k) {
					return fmt.Errorf("key %s is missing", k)
				}
			}
			return nil
		}
	})
}

func has(s store, key string) bool {
	v, ok := s.get(key)
	return ok && v.Class != ""
}

// index measures look-ups that find ten entries.
func (b *bench) index() error {
	return b.read("Read by an index value", "10 entries by index", true, func(s store) runner {
		next := 0
		return func(n int) error {
			for range n {
				next += 7919
				if got := s.coach(next % (len(b.keys) / 10)); got != 10 {
					return fmt.Errorf("%T found %d entries of coach %d, want 10", s, got, next%(len(b.keys)/10))
				}
			}
			return nil
		}
	})
}

// scan measures reads in key order.
func (b *bench) scan() error {
	return b.read("Read a range", "100 entries in key order", false, func(s store) runner {
		if _, unordered := s.(*guarded); unordered {
			return nil
		}
		next := 0
		return func(n int) error {
			for range n {
				next += 7919
				from := fmt.Sprintf("seat-%07d", next%(len(b.keys)-100))
				if got := s.scan(from, 100); got != 100 {
					return fmt.Errorf("%T found %d entries from %s, want 100", s, got, from)
				}
			}
			return nil
		}
	})
}

func (b *bench) read(title, what string, indexed bool, run func(store) runner) (err error) {
	stores, closeAll, err := b.stores(indexed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	l := line{what: what}
	for _, s := range stores {
		l.runs = append(l.runs, run(s))
	}
	return b.table(title, []line{l})
}
