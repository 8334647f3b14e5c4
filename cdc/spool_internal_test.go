package cdc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// wantSpooled checks what a spool holds; a relation is followed by its number.
func wantSpooled(t fataler, sp *spool, want []string) {
	t.Helper()
	var got []string
	var kept [][]byte
	err := sp.each(func(msg []byte, relation uint64) error {
		kept = append(kept, msg)
		text := string(msg)
		if relation != 0 {
			text += fmt.Sprint(relation)
		}
		got = append(got, text)
		return nil
	})
	if err != nil {
		t.Fatalf("each() = %v", err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("spool holds %d messages %.200q, want %d %.200q", len(got), got, len(want), want)
	}
	for i, msg := range kept {
		if !strings.HasPrefix(want[i], string(msg)) {
			t.Fatalf("message %d became %.50q", i, msg)
		}
	}
}

// TestSpoolKeepsWhatWasNotRolledBack tries random transactions with savepoints
// inside each other, with a budget that sends most of them to disk.
func TestSpoolKeepsWhatWasNotRolledBack(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := &spools{dir: dir, max: rapid.SampledFrom([]int{0, 1 << 10, 1 << 30}).Draw(t, "budget"), open: make(map[uint32]*spool)}
		defer func() {
			if err := s.close(); err != nil {
				t.Errorf("close() = %v", err)
			}
		}()
		type message struct {
			text string
			subs []uint32 // it is part of
		}
		var model []message
		var stack []uint32 // open subtransactions
		released := map[uint32][]uint32{}
		next, relations := uint32(100), uint64(0)
		sp := s.of(99)
		collect := func(xid uint32) []uint32 {
			all := []uint32{xid}
			for i := 0; i < len(all); i++ {
				all = append(all, released[all[i]]...)
			}
			return all
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				stack = append(stack, next)
				next++
			case 1: // release
				if n := len(stack); n > 0 {
					parent := uint32(99)
					if n > 1 {
						parent = stack[n-2]
					}
					released[parent] = append(released[parent], stack[n-1])
					stack = stack[:n-1]
				}
			case 2: // roll back, which the server tells of each one inside first
				if n := len(stack); n > 0 {
					gone := collect(stack[n-1])
					stack = stack[:n-1]
					slices.Reverse(gone)
					for _, xid := range gone {
						if err := s.rollBack(sp, xid); err != nil {
							t.Fatalf("rollBack() = %v", err)
						}
					}
					model = slices.DeleteFunc(model, func(m message) bool { return slices.Contains(gone, m.subs[0]) })
				}
			default:
				xid := uint32(99)
				if n := len(stack); n > 0 {
					xid = stack[n-1]
				}
				text := string(rapid.SampledFrom([]rune("IUDR")).Draw(t, "kind")) +
					strings.Repeat("x", rapid.SampledFrom([]int{1, 100, 1000, 300_000}).Draw(t, "size"))
				msg, number := []byte(text), uint64(0)
				if text[0] == 'R' {
					relations++
					number = relations
					text += fmt.Sprint(number)
				}
				if err := s.add(sp, xid, msg, number); err != nil {
					t.Fatalf("add() = %v", err)
				}
				clear(msg) // the socket's memory is not the spool's
				model = append(model, message{text, []uint32{xid}})
			}
		}
		var want []string
		for _, m := range model {
			want = append(want, m.text)
		}
		wantSpooled(t, sp, want)
		if s.used != len(sp.mem) {
			t.Fatalf("%d bytes in use, want %d", s.used, len(sp.mem))
		}
	})
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("files %q are left", left)
	}
}

func TestSpoolsStayWithinTheirMemory(t *testing.T) {
	s := &spools{dir: t.TempDir(), max: 1 << 20, open: make(map[uint32]*spool)}
	msg := bytes.Repeat([]byte("I"), 10_000)
	for i := range 2000 {
		if err := s.add(s.of(uint32(i%5)), uint32(i%5), msg, 0); err != nil {
			t.Fatal(err)
		}
		if limit := s.max + 5*(smallSpool+len(msg)); s.used > limit {
			t.Fatalf("%d bytes in memory after %d messages, want at most %d", s.used, i, limit)
		}
	}
	for xid := range uint32(5) {
		sp, n := s.take(xid), 0
		if err := sp.each(func([]byte, uint64) error { n++; return nil }); err != nil || n != 400 {
			t.Errorf("transaction %d: %d messages, %v; want 400", xid, n, err)
		}
		if err := sp.close(); err != nil {
			t.Error(err)
		}
	}
	if s.used != 0 {
		t.Errorf("%d bytes in use after all were taken", s.used)
	}
}

func TestSpoolWithoutRoomEndsTheRun(t *testing.T) {
	s := &spools{dir: filepath.Join(t.TempDir(), "missing"), open: make(map[uint32]*spool)}
	err := s.add(s.of(5), 5, bytes.Repeat([]byte("I"), blockSize), 0)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "SpoolDir") {
		t.Errorf("add() = %v, want the cause and what to do", err)
	}
	if transient(err) {
		t.Errorf("%v counts as transient", err)
	}
}

func TestSpoolKnowsWhenAMessageIsInDoubt(t *testing.T) {
	const top, sub, other = 1, 2, 3
	for name, test := range map[string]struct {
		said  []uint32 // by the number of a subtransaction; 0 is a message
		doubt bool
	}{
		"no message":                        {said: []uint32{top, sub}},
		"before the first row":              {said: []uint32{top, 0, sub}, doubt: true},
		"alone":                             {said: []uint32{top, sub, other, 0}},
		"before a row of the transaction":   {said: []uint32{0, top, sub}},
		"behind the first row":              {said: []uint32{top, sub, 0, sub}},
		"before another subtransaction":     {said: []uint32{top, 0, other, sub}, doubt: true},
		"of one that has no rows":           {said: []uint32{top, 0}, doubt: true},
		"behind the first, and before":      {said: []uint32{top, 0, sub, 0}, doubt: true},
		"of a transaction without rows":     {said: []uint32{0, sub}, doubt: true},
		"both, with a row of its own since": {said: []uint32{0, top, sub, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			sp := &spool{xid: top, last: top}
			for _, xid := range test.said {
				if xid == 0 {
					sp.add(top, []byte("Message"), 0)
					continue
				}
				sp.add(xid, []byte("Insert"), 0)
			}
			if err := sp.rollBack(sub); errors.Is(err, errMessageInDoubt) != test.doubt {
				t.Errorf("rollBack() = %v, want doubt %t", err, test.doubt)
			}
		})
	}
}
