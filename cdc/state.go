package cdc

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A state is what a source remembers from one run to the next, in a file of
// Options.StateDir. Without one it is forgotten with the process.
type state struct {
	// Which cluster, and which history of it, the positions below are of.
	SystemID uint64 `json:"system_id,string"`
	Timeline uint32 `json:"timeline"`
	// Confirmed is at or after everything that was ever confirmed to the
	// server: it is stored before a status update says so.
	Confirmed LSN `json:"confirmed"`
	// Last is at or after every event before Confirmed, and, once a transaction
	// was stored, no further than the last one that was. Zero if it is not known.
	Last listeners.Position `json:"last,omitzero"`
	// Epoch is that of the positions where it is not the system identifier.
	Epoch uint64 `json:"epoch,string,omitempty"`
	// Absent says that the slot is not expected to exist: its snapshot has not
	// been stored, or it was given up. With Confirmed it may just have been made.
	Absent bool `json:"absent,omitempty"`
	Lost   loss `json:"lost,omitzero"`
	// Snapshot is how far the first snapshot is, nil if none is being taken. It
	// is replaced, never changed.
	Snapshot *keptSnapshot `json:"snapshot,omitempty"`
}

func (s state) epoch() uint64 { return cmp.Or(s.Epoch, s.SystemID) }

// before is a position at or after every event before an LSN.
func (s state) before(at LSN) listeners.Position {
	return listeners.Position{Epoch: s.epoch(), Commit: uint64(at) - 1, Index: math.MaxUint32}
}

// A stateFile keeps a state. Its zero path means in memory only.
type stateFile struct {
	path string
	last func() listeners.Position // of what was stored; nil if nobody counts

	mu      sync.Mutex
	state   state
	existed bool      // there was a file when it was opened
	reached time.Time // when reach stored last
}

// stateInterval is the least time between two stores of a position.
const stateInterval = time.Second

func statePath(dir, slot string) string { return filepath.Join(dir, slot+".state.json") }

// forget removes the state of a slot, if there is one.
func forget(dir, slot string) error {
	err := os.Remove(statePath(dir, slot))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the state of slot %q: %w", slot, err)
	}
	return nil
}

// openState reads the state of a slot; a file that is missing is an empty one.
func openState(dir, slot string) (*stateFile, error) {
	f := new(stateFile)
	if dir == "" {
		return f, nil
	}
	f.path = statePath(dir, slot)
	data, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("state of slot %q: %w", slot, err)
	}
	if err := json.Unmarshal(data, &f.state); err != nil {
		return nil, fmt.Errorf("state of slot %q: %s: %w; remove the file if it cannot be mended", slot, f.path, err)
	}
	f.existed = true
	return f, nil
}

// reload reads the file again: until a moment ago another process may have
// written to it.
func (f *stateFile) reload(slot string) error {
	if f.path == "" {
		return nil
	}
	now, err := openState(filepath.Dir(f.path), slot)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.existed = now.state, now.existed
	return nil
}

// reach stores a confirmed position, at once if now is true, and returns the
// one that is stored.
func (f *stateFile) reach(confirmed LSN, now bool) (LSN, error) {
	f.mu.Lock()
	stored, wait := f.state.Confirmed, f.path != "" && !now && time.Since(f.reached) < stateInterval
	f.mu.Unlock()
	if confirmed <= stored || wait {
		return stored, nil
	}
	err := f.update(func(s *state) {
		s.Confirmed = confirmed
		// It may be of a transaction behind that, which does no harm.
		if f.last != nil {
			if last := f.last(); last.Compare(s.Last) > 0 {
				s.Last = last
			}
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reached = time.Now()
	return f.state.Confirmed, err
}

func (f *stateFile) get() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// update changes the state and returns when the file has the change, on disk.
// After an error the state is what it was.
func (f *stateFile) update(change func(*state)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.state
	change(&next)
	if f.path != "" {
		if err := writeFile(f.path, next); err != nil {
			return fmt.Errorf("store the state: %w", err)
		}
	}
	f.state = next
	return nil
}

// writeFile replaces a file as a whole: after a crash it is the old one or the
// new one.
func writeFile(path string, content any) (err error) {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.Write(append(data, '\n'))
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename survive a crash of the machine.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	// Some file systems cannot sync a directory; the rename is done then.
	_ = d.Sync()
	return d.Close()
}
