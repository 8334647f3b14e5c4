package grid

import "errors"

// ErrClosed is why a region or grid that was closed takes nothing more. What a
// closed region held can still be read.
var ErrClosed = errors.New("closed")

// ErrMirror is why a mirror takes no Put and no Delete.
var ErrMirror = errors.New("a mirror is read-only: write to its source, or use grid.Open for a region of your own")

// ErrTaken is why a region could not be made: the grid has one of that name.
var ErrTaken = errors.New("the name is taken by another region of this grid: choose another, or close that one first")
