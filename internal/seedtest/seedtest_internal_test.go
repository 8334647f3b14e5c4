package seedtest

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTheEnvironmentSaysWhichSeedsArePlayed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		count, seed string
		few, each   int
		first       uint64 // unless it is random
		n           int
		anew        bool
		random, bad bool
	}{
		"nothing asked":       {few: 5, each: 1, n: 5},
		"many":                {count: "100", few: 5, each: 1, n: 100, random: true},
		"many of a slow one":  {count: "100", few: 2, each: 10, n: 10, random: true},
		"few of a slow one":   {count: "5", few: 2, each: 10, n: 2, random: true},
		"anew":                {few: 1, each: 1, n: 1, anew: true, random: true},
		"anew, one again":     {seed: "77", few: 1, each: 1, first: 77, n: 1, anew: true},
		"one again":           {seed: "77", few: 5, each: 1, first: 77, n: 1},
		"many from one on":    {count: "100", seed: "77", few: 5, each: 1, first: 77, n: 100},
		"the largest":         {seed: "18446744073709551615", few: 5, each: 1, first: 1<<64 - 1, n: 1},
		"no number":           {count: "many", few: 5, each: 1, bad: true},
		"none":                {count: "0", few: 5, each: 1, bad: true},
		"a seed is no number": {seed: "-1", few: 5, each: 1, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{countName: tc.count, seedName: tc.seed}
			first, n, err := chosen(tc.few, tc.each, tc.anew, func(k string) string { return env[k] })
			if (err != nil) != tc.bad {
				t.Fatalf("error %v, want one: %t", err, tc.bad)
			}
			if n != tc.n || !tc.random && first != tc.first || tc.random && first == 0 {
				t.Errorf("%d seeds from %d on, want %d from %d on", n, first, tc.n, tc.first)
			}
		})
	}
}

func TestASeedDrawsTheSameAgain(t *testing.T) { //nolint:paralleltest // it sets a flag of the test binary
	drawn := func(seed uint64) (all []int) {
		Check(t, seed, func(t *rapid.T) { all = append(all, rapid.Int().Draw(t, "n")) })
		return all
	}
	if one, again := drawn(7), drawn(7); !slices.Equal(one, again) {
		t.Error("seed 7 draws something else the second time")
	}
	if slices.Equal(drawn(7), drawn(8)) {
		t.Error("different seeds draw the same")
	}
}

func TestEachSeedIsPlayedOnce(t *testing.T) {
	t.Setenv(countName, "3")
	t.Setenv(seedName, "5")
	var got []uint64
	Play(t, 1, func(_ *testing.T, seed uint64) { got = append(got, seed) })
	if want := []uint64{5, 6, 7}; !slices.Equal(got, want) {
		t.Errorf("played %d, want %d", got, want)
	}
}
