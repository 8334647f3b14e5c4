package main

import (
	"errors"
	"math"

	"github.com/dustin/go-humanize"
)

// A byteSize is a flag that takes a number of bytes such as 10GB or 512MiB.
type byteSize int64

// String implements pflag.Value. Zero, the default of those flags, is "".
func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return humanize.IBytes(uint64(max(0, *b)))
}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return errors.New("want a size such as 10GB or 512MiB")
	}
	*b = byteSize(n)
	return nil
}

// Type implements pflag.Value.
func (b *byteSize) Type() string { return "size" }
