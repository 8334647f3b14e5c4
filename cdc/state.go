package cdc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
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
	// Snapshot is how far the first snapshot is, nil if none is being taken. It
	// is replaced, never changed.
	Snapshot *keptSnapshot `json:"snapshot,omitempty"`
}

// A stateFile keeps a state. Its zero path means in memory only.
type stateFile struct {
	path string

	mu      sync.Mutex
	state   state
	existed bool // there was a file when it was opened
}

// openState reads the state of a slot; a file that is missing is an empty one.
func openState(dir, slot string) (*stateFile, error) {
	f := new(stateFile)
	if dir == "" {
		return f, nil
	}
	f.path = filepath.Join(dir, slot+".state.json")
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
