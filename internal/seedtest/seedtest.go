package seedtest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

const (
	countName = "ROWCALL_MODEL_SEEDS"
	seedName  = "ROWCALL_TEST_SEED"
)

// Play plays a model with a few seeds, from 0 on, or with as many as
// ROWCALL_MODEL_SEEDS says. It stops behind the first that fails.
func Play(t *testing.T, few int, play func(t *testing.T, seed uint64)) {
	t.Helper()
	playEach(t, few, 1, false, play)
}

// PlayAnew is Play with one seed by itself, which differs from run to run.
func PlayAnew(t *testing.T, play func(t *testing.T, seed uint64)) {
	t.Helper()
	playEach(t, 1, 1, true, play)
}

// PlaySlow is Play for a model that takes seconds: of the seeds that
// ROWCALL_MODEL_SEEDS says it plays a tenth, but at least a few.
func PlaySlow(t *testing.T, few int, play func(t *testing.T, seed uint64)) {
	t.Helper()
	playEach(t, few, 10, false, play)
}

func playEach(t *testing.T, few, each int, anew bool, play func(t *testing.T, seed uint64)) {
	t.Helper()
	first, n, err := chosen(few, each, anew, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(n) {
		seed := first + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Logf("again with %s=%d", seedName, seed) // now, since a history may end in a panic
			play(t, seed)
		})
		if t.Failed() {
			return
		}
	}
}

// chosen returns the first seed and how many are played.
func chosen(few, each int, anew bool, env func(string) string) (first uint64, n int, err error) {
	n = few
	if anew || env(countName) != "" {
		first = 1 + rand.Uint64N(1<<53) // which any tool reads back as it was
	}
	if v := env(countName); v != "" {
		n, err = strconv.Atoi(v)
		if err != nil || n < 1 {
			return 0, 0, fmt.Errorf("%s=%q is no number of seeds", countName, v)
		}
		n = max(few, n/each)
	}
	if v := env(seedName); v != "" {
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("%s=%q is no seed", seedName, v)
		}
		if env(countName) == "" {
			n = 1
		}
	}
	return first, n, nil
}

// Check is [rapid.Check] with a seed of [PlayAnew]: its hundred histories are the
// same whenever the seed is, unless -rapid.seed names another. It is not for tests
// that run beside others.
func Check(tb rapid.TB, seed uint64, property func(*rapid.T)) {
	tb.Helper()
	const name = "rapid.seed"
	if was := flag.Lookup(name).Value.String(); was == "0" {
		if err := flag.Set(name, strconv.FormatUint(seed, 10)); err != nil {
			tb.Fatal(err)
		}
		defer func() { _ = flag.Set(name, was) }()
	}
	rapid.Check(tb, property)
}
