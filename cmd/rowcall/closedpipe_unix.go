//go:build unix

package main

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readerGone returns a channel that is closed when w is a pipe or socket whose
// reader has gone, as after "| head -1". A writer would notice only at its next
// write, which may be long to come. The channel is never closed for other
// files. wait returns when the watch, which ends with ctx, has ended.
func readerGone(ctx context.Context, w io.Writer) (gone <-chan struct{}, wait func()) {
	closed, ended := make(chan struct{}), make(chan struct{})
	f, ok := w.(*os.File)
	if !ok || !isPipe(f) {
		close(ended)
		return closed, func() {}
	}
	go func() {
		defer close(ended)
		const patience = 250 // milliseconds until the next look at ctx
		fds := []unix.PollFd{{Fd: int32(f.Fd())}}
		for ctx.Err() == nil {
			// No events are asked for: POLLERR and POLLHUP always come.
			n, err := unix.Poll(fds, patience)
			if err != nil && err != unix.EINTR {
				return
			}
			if n > 0 {
				close(closed)
				return
			}
		}
	}()
	return closed, func() { <-ended }
}

func isPipe(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}
