package natsserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrDirInUse is wrapped by the error of [Start] when another server, of this
// process or another, holds the store directory.
var ErrDirInUse = errors.New("store directory is in use")

// errLocked is what tryLock returns when somebody else holds the lock.
var errLocked = errors.New("locked")

// dirLock is a store directory that nobody else may open.
type dirLock struct{ file *os.File }

// lockDir creates the directory if it is absent and takes its lock. The file
// stays when the lock is released: removing it would let two processes lock two
// files of the same name.
func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("store directory %s cannot be created: %w; choose one that can be written to", dir, err)
	}
	path := filepath.Join(dir, "rowcall.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store directory %s cannot be written to: %w; choose another, or correct its owner and mode", dir, err)
	}
	if err := tryLock(f); err != nil {
		holder := ""
		if pid, _ := io.ReadAll(io.LimitReader(f, 20)); len(pid) > 0 {
			holder = " (process " + strings.TrimSpace(string(pid)) + ")"
		}
		f.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("store directory %s is in use by another rowcall%s: stop that one, or choose another directory (%w)",
				dir, holder, ErrDirInUse)
		}
		return nil, fmt.Errorf("lock %s: %w; the store needs a file system with file locks", path, err)
	}
	// Who holds it is a courtesy; the lock is what counts.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dirLock{file: f}, nil
}

func (l *dirLock) release() { l.file.Close() }
