package grid

import (
	"runtime"
	"testing"
	"weak"
)

// An index copies the entries of its region. What they were copied from is
// garbage when nobody else reads it.
func TestNewIndexLeavesNoOldEntries(t *testing.T) {
	r, err := Open[int, [4096]byte](New("g", nil), "r", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Put(t.Context(), 1, [4096]byte{7}); err != nil {
		t.Fatal(err)
	}
	old := weak.Make(r.Snapshot().find(1))
	x, err := NewIndex(r, "first", func(_ int, v [4096]byte) (byte, bool) { return v[0], true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.feed.Close() // its last batch refers to the entry, too
	for range 20 {
		if runtime.GC(); old.Value() == nil {
			break
		}
	}
	if old.Value() != nil {
		t.Error("the entry from before NewIndex is still in memory")
	}
	if e, ok := x.First(7); !ok || e.Key != 1 {
		t.Errorf("First(7) = %v, %t; want key 1", e.Key, ok)
	}
}
