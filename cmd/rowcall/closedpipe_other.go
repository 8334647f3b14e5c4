//go:build !unix

package main

import (
	"context"
	"io"
)

// readerGone is the same as never: here only a write tells.
func readerGone(context.Context, io.Writer) (gone <-chan struct{}, wait func()) {
	return nil, func() {}
}
