package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// unpack writes the files of an npm package, which lie in one folder of its
// archive, to dir. Everybody may read them, and run what is to be run.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if h.Typeflag != tar.TypeReg || name == "" {
			continue
		}
		name = filepath.FromSlash(name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%q leads out of the package", h.Name)
		}
		// Not every package marks its programs.
		mode := os.FileMode(0o644)
		if h.Mode&0o111 != 0 || filepath.Base(filepath.Dir(name)) == "bin" {
			mode = 0o755
		}
		if err := write(filepath.Join(dir, name), r, mode); err != nil {
			return err
		}
	}
}

func write(path string, from io.Reader, mode os.FileMode) error {
	if err := openDir(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	// The umask must not close it to the user that servers run as.
	return errors.Join(err, f.Chmod(mode), f.Close())
}
