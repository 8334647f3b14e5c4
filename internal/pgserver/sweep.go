package pgserver

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	rootPrefix = "rowcall-pg-"
	claimFile  = "owner.lock"
)

// claim is a locked file in a cluster's temporary directory. The kernel lets go
// of the lock when this process dies, however it dies, and that is how a later
// process knows that the directory is litter.
type claim struct{ file *os.File }

// stakeClaim locks the file before it gets the name that sweep looks for, so
// that there is no moment at which it is there and unlocked.
func stakeClaim(root string) (*claim, error) {
	f, err := os.CreateTemp(root, claimFile+"-*")
	if err != nil {
		return nil, fmt.Errorf("claim directory %s: %w", root, err)
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("claim directory %s: lock %s: %w", root, f.Name(), err)
	}
	if err := os.Rename(f.Name(), filepath.Join(root, claimFile)); err != nil {
		f.Close()
		return nil, fmt.Errorf("claim directory %s: %w", root, err)
	}
	return &claim{file: f}, nil
}

func (c *claim) release() {
	if c != nil {
		c.file.Close()
	}
}

// sweep removes what clusters of dead processes left in dir. What it cannot
// remove, it leaves for the next time: litter must not stop a start.
//
// A postmaster that outlived its owner, where the system has no parent-death
// signal, shuts down within a minute of missing its postmaster.pid.
func sweep(dir string) {
	claims, err := filepath.Glob(filepath.Join(dir, rootPrefix+"*", claimFile))
	if err != nil {
		return
	}
	for _, path := range claims {
		root := filepath.Dir(path)
		if info, err := os.Lstat(root); err != nil || !info.IsDir() || !ownedByThisUser(info) {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if tryLock(f) == nil {
			os.RemoveAll(root)
		}
		f.Close()
	}
}
