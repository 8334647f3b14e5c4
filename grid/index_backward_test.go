package grid_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rowcall/rowcall/grid"
)

func TestIndexBackwardIsTheReverse(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	x, err := grid.NewIndex(r, "value", func(_, v int) (int, bool) { return v, v != 7 }, nil)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		put(t, r, i, random.IntN(60)-30)
	}
	collect := func(seq func(func(int, int) bool), most int) (found []string) {
		for k, v := range seq {
			if found = append(found, fmt.Sprint(k, "=", v)); len(found) == most {
				break
			}
		}
		return found
	}
	want := collect(x.From(-1000), -1)
	slices.Reverse(want)
	if got := collect(x.Backward(), -1); !slices.Equal(got, want) || len(got) < 400 {
		t.Errorf("Backward() = %.200q, want %.200q", got, want)
	}
	if got := collect(x.Backward(), 3); !slices.Equal(got, want[:3]) {
		t.Errorf("the first three of Backward() = %q, want %q", got, want[:3])
	}
	for _, bounds := range [][2]int{{-30, 30}, {-100, 100}, {0, 0}, {5, 9}, {7, 8}, {9, 5}, {29, 1000}, {-1000, -29}} {
		want := collect(x.Range(bounds[0], bounds[1]), -1)
		slices.Reverse(want)
		if got := collect(x.RangeBackward(bounds[0], bounds[1]), -1); !slices.Equal(got, want) {
			t.Errorf("RangeBackward(%d, %d) = %.200q, want %.200q", bounds[0], bounds[1], got, want)
		}
	}
}
