package pgserver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// install puts executables named postgres and initdb into dir.
func install(t *testing.T, dir, content string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	real   = "\x7fELF"
	script = "#!/bin/sh\n"
)

func TestFind(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, root string) search
		want    string // relative to the root; empty: not found
	}{
		"nothing installed": {
			prepare: func(_ *testing.T, root string) search {
				return search{path: []string{root}, places: []string{root + "/lib/*/bin"}}
			},
		},
		"variable before PATH": {
			prepare: func(t *testing.T, root string) search {
				return search{override: install(t, root+"/mine", real), path: []string{install(t, root+"/bin", real)}}
			},
			want: "mine",
		},
		"variable may name wrappers": {
			prepare: func(t *testing.T, root string) search {
				return search{override: install(t, root+"/mine", script)}
			},
			want: "mine",
		},
		"variable without binaries is an error even if PATH has some": {
			prepare: func(t *testing.T, root string) search {
				return search{override: root, path: []string{install(t, root+"/bin", real)}}
			},
		},
		"PATH before the usual places": {
			prepare: func(t *testing.T, root string) search {
				install(t, root+"/lib/17/bin", real)
				return search{path: []string{root, install(t, root+"/bin", real)}, places: []string{root + "/lib/*/bin"}}
			},
			want: "bin",
		},
		"symbolic link in PATH leads to the real directory": {
			prepare: func(t *testing.T, root string) search {
				dir := install(t, root+"/lib/15/bin", real)
				if err := os.Symlink(dir+"/postgres", root+"/postgres"); err != nil {
					t.Fatal(err)
				}
				return search{path: []string{root}}
			},
			want: "lib/15/bin",
		},
		"wrapper script gives way to a real server": {
			prepare: func(t *testing.T, root string) search {
				install(t, root+"/lib/15/bin", real)
				return search{path: []string{install(t, root+"/bin", script)}, places: []string{root + "/lib/*/bin"}}
			},
			want: "lib/15/bin",
		},
		"wrapper script is better than nothing": {
			prepare: func(t *testing.T, root string) search {
				return search{path: []string{install(t, root+"/bin", script)}}
			},
			want: "bin",
		},
		"highest version by number, not by text": {
			prepare: func(t *testing.T, root string) search {
				for _, v := range []string{"9.6", "15", "17", "10"} {
					install(t, root+"/lib/"+v+"/bin", real)
				}
				return search{places: []string{root + "/lib/*/bin"}}
			},
			want: "lib/17/bin",
		},
		"a directory without initdb does not count": {
			prepare: func(t *testing.T, root string) search {
				if err := os.Remove(install(t, root+"/bin", real) + "/initdb"); err != nil {
					t.Fatal(err)
				}
				return search{path: []string{root + "/bin"}}
			},
		},
		"relative PATH entries do not count": {
			prepare: func(t *testing.T, root string) search {
				install(t, root+"/bin", real)
				t.Chdir(root)
				return search{path: []string{"bin", ""}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			got, err := tc.prepare(t, root).find()
			if tc.want == "" {
				if !errors.Is(err, ErrNotFound) {
					t.Errorf("find() = %q, %v; want ErrNotFound", got, err)
				}
				return
			}
			if want := filepath.Join(root, tc.want); got != want || err != nil {
				t.Errorf("find() = %q, %v; want %q, no error", got, err, want)
			}
		})
	}
}

func TestNotFoundErrorNamesTheRemedy(t *testing.T) {
	_, err := search{}.find()
	for _, want := range []string{"apt-get install postgresql", "create_main_cluster", BinDirVariable} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("find() on an empty machine: error %v, want one that contains %q", err, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for line, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18beta1\n":                        18,
		"postgres (PostgreSQL) 19devel\n":                        19,
		"ksh: no such thing\n":                                   0,
	} {
		got, err := parseVersion("postgres", line)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("parseVersion(%q) = %d, %v; want %d", line, got, err, want)
		}
	}
}

func TestOptionsReportAllFaultsAtOnce(t *testing.T) {
	_, err := (&Options{
		BinDir: "/somewhere", Port: 70000, StartTimeout: -1,
		Settings: map[string]string{"Port": "1", "no such;": "x", "work_mem": "1\n2"},
	}).withDefaults()
	for _, want := range []string{"port 70000", "start timeout", "setting Port belongs", `"no such;"`, "work_mem"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("withDefaults() error %q misses %q", err, want)
		}
	}
}

func TestConfQuotesValues(t *testing.T) {
	o := Options{Settings: map[string]string{"search_path": `it's "a\b"`, "WAL_LEVEL": "replica"}}
	got := o.conf(1234, "/run/it's")
	for _, want := range []string{
		`search_path = 'it''s "a\\b"'`, "wal_level = 'replica'", "port = '1234'",
		"unix_socket_directories = '/run/it''s'", "fsync = 'off'",
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("conf() misses the line %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "logical") {
		t.Errorf("conf() keeps the default wal_level next to the given one:\n%s", got)
	}
}
