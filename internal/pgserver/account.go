package pgserver

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is the user that the cluster's processes run as. Nil stands for the
// user of this process.
type account struct {
	name     string
	uid, gid uint32
}

// unprivileged returns nil unless this process is root, and then the user to
// run PostgreSQL as.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is an account: the one of this process
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s has id %q: %w", name, u.Uid, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s has group %q: %w", name, u.Gid, err)
		}
		return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody to run it as: " +
		"add one (`useradd --system postgres`) or run this as another user")
}

// own gives path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give the cluster's directory to user %s: %w", a.name, err)
	}
	return nil
}

// reaches reports, as an error that names the culprit, whether the account may
// traverse every directory from the root down to dir.
func (a *account) reaches(dir string) error {
	if a == nil {
		return nil
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if !a.mayTraverse(info) {
			return fmt.Errorf("user %s, as whom PostgreSQL has to run here, cannot enter %s (mode %s)", a.name, d, info.Mode().Perm())
		}
		if filepath.Dir(d) == d {
			return nil
		}
	}
}
