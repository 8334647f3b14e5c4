package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// load asks the go command for our packages and all that they compile.
func load(t *testing.T) house {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps",
		"-json=ImportPath,Dir,Name,Doc,Standard,GoFiles,Imports", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	h := house{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list printed what is not JSON: %v", err)
		}
		h[p.ImportPath] = p
	}
	return h
}

// root is the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above this test")
	return ""
}

func TestRules(t *testing.T) {
	h := load(t)
	ours := 0
	for _, p := range h {
		if !p.ours() {
			continue
		}
		ours++
		for _, r := range rules {
			for _, fault := range r.check(h, p) {
				t.Errorf("%s: %s (rule: %s)", p.ImportPath, fault, r.name)
			}
		}
	}
	if ours < 2 {
		t.Errorf("go list found %d packages of ours; the rules would hold for anything", ours)
	}
}

func TestSignaturesShowNoForeignTypes(t *testing.T) {
	for _, p := range load(t) {
		if !p.ours() || !inTree(p.room(), "cdc") && !inTree(p.room(), "grid") {
			continue
		}
		if strings.Contains(p.room()+"/", "/internal/") {
			continue
		}
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found, err := foreign(file, src)
			if err != nil {
				t.Errorf("%s: %v", p.ImportPath, err)
			}
			for _, where := range found {
				t.Errorf("%s: %s (rule: types of pglogrepl and expr stay out of public signatures)", p.ImportPath, where)
			}
		}
	}
}

const maxLines = 600

func TestFilesAreShort(t *testing.T) {
	base := root(t)
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != base && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if lines := bytes.Count(src, []byte("\n")); lines > maxLines {
			t.Errorf("%s: %d lines (rule: no file over %d)", strings.TrimPrefix(path, base+"/"), lines, maxLines)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
