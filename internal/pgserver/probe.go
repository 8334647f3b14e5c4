package pgserver

import (
	"context"
	"fmt"
)

// Probe returns the major version of the server binaries in bindir, such as 17,
// if a cluster could be started from there: postgres and initdb are there, and
// the user that they have to run as may enter the directory. Without binaries
// the error wraps [ErrNotFound].
func Probe(ctx context.Context, bindir string) (int, error) {
	if binariesIn(bindir) == noBinaries {
		return 0, fmt.Errorf("%w in %s", ErrNotFound, bindir)
	}
	if err := Reachable(bindir); err != nil {
		return 0, err
	}
	return majorVersion(ctx, bindir)
}

// Reachable returns nil if the user that servers run as may enter a directory
// that exists, and otherwise an error that names what is in the way.
func Reachable(dir string) error {
	as, err := unprivileged()
	if err != nil {
		return err
	}
	return as.reaches(dir)
}
