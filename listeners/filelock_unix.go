//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package listeners

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes a lock that ends when the file is closed, by the end of the
// process at the latest.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrNameTaken
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EOPNOTSUPP):
			return nil // a file system without locks
		case !errors.Is(err, syscall.EINTR):
			return err
		}
	}
}
