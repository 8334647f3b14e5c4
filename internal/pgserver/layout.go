package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// layout is where one cluster keeps its files.
type layout struct {
	root   string // ours; everything below goes with it
	data   string // PGDATA, owned by the cluster's user
	socket string // directory of the Unix socket, owned by the cluster's user
	log    string // what postgres prints

	claim *claim // nil where nobody may remove the directory but Stop
}

// maxSocketPath is sun_path without its NUL on the systems with the least room.
const maxSocketPath = 103

// newLayout creates the directories. On error it leaves none behind.
func newLayout(opts *Options, as *account) (_ *layout, err error) {
	l := &layout{root: opts.Dir}
	if l.root == "" {
		if l.root, err = temporaryRoot(as); err != nil {
			return nil, err
		}
	} else if err := claimEmpty(l.root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.remove())
		}
	}()

	if as != nil {
		// Others need to pass through, but not to list.
		if err := os.Chmod(l.root, 0o711); err != nil { //nolint:gosec // another user has to get in
			return nil, fmt.Errorf("open the cluster's directory to user %s: %w", as.name, err)
		}
	}
	if err := as.reaches(l.root); err != nil {
		return nil, fmt.Errorf("directory %s: %w; choose another", l.root, err)
	}
	if !opts.Keep && opts.Dir == "" {
		if l.claim, err = stakeClaim(l.root); err != nil {
			return nil, err
		}
	}

	l.data = filepath.Join(l.root, "data")
	l.socket = filepath.Join(l.root, "socket")
	l.log = filepath.Join(l.root, "postgres.log")
	if len(filepath.Join(l.socket, ".s.PGSQL.65535")) > maxSocketPath {
		if l.socket, err = os.MkdirTemp("/tmp", "rowcall-pgsock-"); err != nil {
			return nil, fmt.Errorf("create a directory for the Unix socket: %w", err)
		}
	} else if err := os.Mkdir(l.socket, 0o700); err != nil {
		return nil, fmt.Errorf("create a directory for the Unix socket: %w", err)
	}
	if err := os.Mkdir(l.data, 0o700); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	return l, errors.Join(as.own(l.data), as.own(l.socket))
}

// temporaryRoot creates a directory below the system's temporary directory, or
// below /tmp or /var/tmp if the account cannot get there.
func temporaryRoot(as *account) (string, error) {
	var faults []error
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if err := as.reaches(dir); err != nil {
			faults = append(faults, err)
			continue
		}
		sweep(dir)
		root, err := os.MkdirTemp(dir, rootPrefix+"*")
		if err == nil {
			return root, nil
		}
		faults = append(faults, err)
	}
	return "", fmt.Errorf("create a temporary directory for the cluster: %w", errors.Join(faults...))
}

// claimEmpty makes sure that dir exists and is empty, since Stop removes it with
// all that is in it.
func claimEmpty(dir string) error {
	// Parents that are missing must let the cluster's user through.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // another user has to get in
		return fmt.Errorf("create the parents of the cluster's directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create the cluster's directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the cluster's directory: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("directory %s is not empty (it holds %s): a throw-away cluster would remove what is there; choose a new one",
			dir, entries[0].Name())
	}
	return nil
}

func (l *layout) remove() error {
	err := errors.Join(os.RemoveAll(l.root), os.RemoveAll(l.socket))
	l.claim.release()
	if err != nil {
		return fmt.Errorf("remove the cluster's directory: %w", err)
	}
	return nil
}
