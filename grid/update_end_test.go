package grid_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rowcall/rowcall/grid"
)

// An Update whose function is so slow that the entry ends meanwhile does not
// bring it back.
func TestUpdateOfAnEntryThatEndsMeanwhile(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	heard := newTwin()
	sub := subscribe(t, r, heard, current)
	live(t, sub)
	if _, err := r.PutTTL(deadline(t), "a", 1, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	pos, err := r.Update(deadline(t), "a", func(v int) (int, error) {
		wait(t, "the end of the entry", func() bool {
			_, there := r.Peek("a")
			return !there
		})
		return v + 1, nil
	})
	if !errors.Is(err, grid.ErrNotFound) || !pos.IsZero() {
		t.Errorf("Update() = %s, %v; want the zero position and ErrNotFound", pos, err)
	}
	if err := sub.Wait(deadline(t), r.Position()); err != nil {
		t.Fatal(err)
	}
	heard.check(t, r, "write create a 0 1", "expire delete a 1 0")
}
