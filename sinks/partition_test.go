package sinks_test

import (
	"hash/fnv"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/sinks"
)

func TestPartitionIsFNV1aOfCollectionZeroKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		collection, key := rapid.String().Draw(t, "collection"), rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		n := rapid.IntRange(1, sinks.MaxPartitions).Draw(t, "n")
		h := fnv.New64a()
		h.Write([]byte(collection))
		h.Write([]byte{0})
		h.Write(key)
		if got, want := sinks.Partition(collection, key, n), int(h.Sum64()%uint64(n)); got != want {
			t.Errorf("Partition(%q, %q, %d) = %d, want %d", collection, key, n, got, want)
		}
	})
}

// Other programs compute partitions too: these must never change.
func TestPartitionStays(t *testing.T) {
	for name, tc := range map[string]struct {
		collection, key string
		n, want         int
	}{
		"row":        {"public.seats", "7", 16, 1},
		"no key":     {"public.log", "", 16, 0},
		"composite":  {"public.seats", "ICE%20599/12A", 16, 8},
		"a thousand": {"public.seats", "7", 1000, 489},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sinks.Partition(tc.collection, []byte(tc.key), tc.n); got != tc.want {
				t.Errorf("Partition(%q, %q, %d) = %d, want %d", tc.collection, tc.key, tc.n, got, tc.want)
			}
		})
	}
}

func TestPartitionToken(t *testing.T) {
	for p, want := range map[int]string{sinks.All: "all", 0: "000", 9: "009", 10: "010", 99: "099", 100: "100", 999: "999"} {
		if got := sinks.PartitionToken(p); got != want {
			t.Errorf("PartitionToken(%d) = %q, want %q", p, got, want)
		}
	}
}
