package main

import "fmt"

// A seat is what the stores hold. Ten seats share a coach.
type seat struct {
	Coach int
	Class string
	Price int
}

// A store is one of the programs. Every call is a transaction of its own.
type store interface {
	put(key string, v seat) error
	putAll(keys []string, v func(key string) seat) error
	get(key string) (seat, bool)
	// coach reads the seats of a coach through an index and returns how many.
	coach(n int) int
	// scan reads n entries in key order and returns how many there were.
	scan(from string, n int) int
	close() error
}

// A program makes stores. With an index, seats are found by their coaches.
type program struct {
	name string
	open func(indexed bool) (store, error)
}

// The programs, in the order of the columns. The last one is ours.
func programs() []program {
	return []program{
		{"memdb", openMemdb},
		{"statedb", openStatedb},
		{"mutex and map", openGuarded},
		{"region", func(indexed bool) (store, error) { return openRegion(indexed) }},
	}
}

// keysOf returns n keys in an order that is none, the same each time.
func keysOf(n int) []string {
	step := 7919 // prime
	for gcd(step, n) != 1 {
		step += 2
	}
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("seat-%07d", i*step%n)
	}
	return keys
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// seatOf returns the first value of a key of keysOf.
func seatOf(key string) seat {
	n := 0
	for _, c := range key[len("seat-"):] {
		n = n*10 + int(c-'0')
	}
	return seat{Coach: n / 10, Class: "first", Price: n}
}

// fill stores all keys, a thousand at a time.
func fill(s store, keys []string) error {
	for len(keys) > 0 {
		n := min(len(keys), 1000)
		if err := s.putAll(keys[:n], seatOf); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}
