package main

import (
	"fmt"
	"os"
	"runtime"
)

// memory measures the heap that entries take, without their keys' text, which
// the program has anyway.
func (b *bench) memory() error {
	keys := keysOf(b.large)
	fmt.Fprintf(b.out, "\nMemory of %d entries\n\n| | bytes per entry | ratio to region |\n|---|---|---|\n", b.large)
	var took []uint64
	for _, p := range programs() {
		fmt.Fprintf(os.Stderr, "bench: memory of %s\n", p.name)
		before := heap()
		s, err := p.open(false)
		if err != nil {
			return err
		}
		if err := fill(s, keys); err != nil {
			return err
		}
		took = append(took, heap()-before)
		runtime.KeepAlive(s)
		if err := s.close(); err != nil {
			return err
		}
	}
	runtime.KeepAlive(keys)
	for i, p := range programs() {
		fmt.Fprintf(b.out, "| %s | %.0f | %.2f |\n", p.name, float64(took[i])/float64(b.large), float64(took[i])/float64(took[len(took)-1]))
	}
	return nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // pools are emptied in two steps
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
