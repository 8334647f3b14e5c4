package sinks

import (
	"strconv"

	"github.com/rowcall/rowcall/listeners"
)

const (
	// DefaultPartitions is the number of partitions unless options say
	// otherwise.
	DefaultPartitions = 16
	// MaxPartitions is the largest number of partitions that three digits
	// hold.
	MaxPartitions = 1000
	// All stands for every partition, as what concerns a whole table has it.
	All = -1
)

// Partition returns the partition of a row: FNV-1a (64 bits) of the
// collection, a zero byte and the text of the key, modulo n. n must be at
// least 1. It does not allocate.
func Partition(collection string, key []byte, n int) int {
	const (
		offset = 14695981039346656037
		prime  = 1099511628211
	)
	h := uint64(offset)
	for i := range len(collection) {
		h = (h ^ uint64(collection[i])) * prime
	}
	h *= prime // the zero byte
	for _, b := range key {
		h = (h ^ uint64(b)) * prime
	}
	return int(h % uint64(n))
}

// forAll reports whether an event concerns every partition: a truncate, and a
// message without a key.
func forAll(e *listeners.Event) bool {
	return e.Op == listeners.Truncate || (e.Op == listeners.Message && e.Key().Len() == 0)
}

// PartitionToken returns the last token of an address: three digits, or "all".
func PartitionToken(p int) string {
	switch {
	case p == All:
		return "all"
	case p < 10:
		return "00" + strconv.Itoa(p)
	case p < 100:
		return "0" + strconv.Itoa(p)
	}
	return strconv.Itoa(p)
}
