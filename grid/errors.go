package grid

import (
	"errors"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// ErrClosed is why a region or grid that was closed takes nothing more. What a
// closed region held can still be read.
var ErrClosed = errors.New("closed")

// ErrMirror is why a mirror takes no writes.
var ErrMirror = errors.New("a mirror is read-only: write to its source, or use grid.Open for a region of your own")

// ErrTaken is why a region could not be made: the grid has one of that name; or
// why an index could not be made: the region has one of that name.
var ErrTaken = errors.New("the name is taken by another region of this grid, or by another index of this region: choose another, or close that region first")

// ErrNotFound is why [Region.Update] did nothing: the key is absent.
var ErrNotFound = errors.New("the key is not in the region: use Put or Insert to create it")

// An ExistsError is why [Region.Insert] stored nothing.
type ExistsError struct {
	Key     any                // as it was given
	Version listeners.Position // of the entry that is there
}

// Error implements error.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("key %v exists since %s: use Put or Update to change it", e.Key, e.Version)
}

// A VersionError is why [Region.CompareAndPut] stored nothing.
type VersionError struct {
	Key  any                // as it was given
	Want listeners.Position // the version that the caller had read; zero for absent
	Have listeners.Position // the version that is there; zero for absent
}

// A UniqueError is why a write stored nothing, or an index could not be made:
// a unique index has the value already.
type UniqueError struct {
	Index  string
	Key    any // of the entry that was to have the value
	Holder any // the key of the entry that has it
}

// Error implements error.
func (e *UniqueError) Error() string {
	return fmt.Sprintf("key %v has in the unique index %q the same value as key %v: change or delete that one first", e.Key, e.Index, e.Holder)
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("key %v is at version %s, not at %s: read the entry again and decide anew", e.Key, e.Have, e.Want)
}
