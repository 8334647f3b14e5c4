package pgserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// BinDirVariable names the environment variable that overrides where [Find]
// looks.
const BinDirVariable = "ROWCALL_PG_BIN"

// ErrNotFound is wrapped by the error of [Find] on a machine without server
// binaries.
var ErrNotFound = errors.New("no PostgreSQL server binaries (postgres and initdb)")

// Find returns the directory that holds the server binaries postgres and initdb.
//
// It looks at $ROWCALL_PG_BIN, which must be right if it is set; then at PATH,
// following symbolic links; then where Debian, the PostgreSQL project, Homebrew,
// Alpine and Postgres.app install, highest version first. A shell script that
// stands in for postgres counts only if nothing else is found: such a wrapper
// may hide the process that has to be signalled.
//
// Without binaries the error wraps [ErrNotFound] and says how to install them.
func Find() (bindir string, err error) {
	return search{
		override: os.Getenv(BinDirVariable),
		path:     filepath.SplitList(os.Getenv("PATH")),
		places: []string{
			"/usr/lib/postgresql/*/bin",
			"/usr/pgsql-*/bin",
			"/opt/homebrew/opt/postgresql@*/bin",
			"/usr/local/opt/postgresql@*/bin",
			"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
			"/usr/libexec/postgresql*",
			"/Applications/Postgres.app/Contents/Versions/*/bin",
		},
	}.find()
}

// search holds what Find consults, so that a test can give it another machine.
type search struct {
	override string
	path     []string
	places   []string // glob patterns, one * for the version
}

func (s search) find() (string, error) {
	if s.override != "" {
		if kind := binariesIn(s.override); kind == noBinaries {
			return "", fmt.Errorf("%w in %s, where $%s points: set it to the directory that holds them, or unset it",
				ErrNotFound, s.override, BinDirVariable)
		}
		return s.override, nil
	}

	var wrapped string
	for _, dir := range s.path {
		if !filepath.IsAbs(dir) {
			continue // like os/exec, take no program from the current directory
		}
		postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			continue
		}
		for _, dir := range []string{filepath.Dir(postgres), dir} {
			switch kind := binariesIn(dir); {
			case kind == realBinaries:
				return dir, nil
			case kind == wrapperScripts && wrapped == "":
				wrapped = dir
			}
		}
	}
	for _, pattern := range s.places {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("look for PostgreSQL in %s: %w", pattern, err)
		}
		slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(versionInPath(b), versionInPath(a)) })
		for _, dir := range dirs {
			if binariesIn(dir) == realBinaries {
				return dir, nil
			}
		}
	}
	if wrapped != "" {
		return wrapped, nil
	}
	return "", fmt.Errorf("%w in $%s, PATH, %s: on Debian and Ubuntu run `apt-get install postgresql` "+
		"(that package also creates a cluster on port 5432 and starts it; to have the binaries only, first write "+
		"`create_main_cluster = false` into /etc/postgresql-common/createcluster.d/no-main.conf), "+
		"or set %s to the directory that holds them",
		ErrNotFound, BinDirVariable, strings.Join(s.places, ", "), BinDirVariable)
}

// binaries says what a directory has to offer.
type binaries int

const (
	noBinaries binaries = iota
	wrapperScripts
	realBinaries
)

func binariesIn(dir string) binaries {
	kind := realBinaries
	for _, name := range []string{"postgres", "initdb"} {
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return noBinaries
		}
		if isScript(file) {
			kind = wrapperScripts
		}
	}
	return kind
}

func isScript(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [2]byte
	n, err := f.Read(magic[:])
	return err == nil && bytes.Equal(magic[:n], []byte("#!"))
}

var digits = regexp.MustCompile(`\d+(?:\.\d+)?`)

// versionInPath reads the last number in a directory name: 9.6 sorts below 10.
func versionInPath(dir string) float64 {
	numbers := digits.FindAllString(dir, -1)
	if len(numbers) == 0 {
		return 0
	}
	version, err := strconv.ParseFloat(numbers[len(numbers)-1], 64)
	if err != nil {
		return 0
	}
	return version
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// Installed returns the major version of the binaries that [Find] finds, such as
// 17. It starts no server.
func Installed(ctx context.Context) (int, error) {
	bindir, err := Find()
	if err != nil {
		return 0, err
	}
	return majorVersion(ctx, bindir)
}

// majorVersion asks the postgres binary in bindir for its version.
func majorVersion(ctx context.Context, bindir string) (int, error) {
	postgres := filepath.Join(bindir, "postgres")
	out, err := exec.CommandContext(ctx, postgres, "--version").Output()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return 0, fmt.Errorf("%s --version: %w", postgres, cause) // rather than "signal: killed"
	}
	if err != nil {
		return 0, fmt.Errorf("%s --version: %w", postgres, err)
	}
	return parseVersion(postgres, string(out))
}

func parseVersion(postgres, line string) (int, error) {
	m := versionLine.FindStringSubmatch(line)
	if m == nil {
		return 0, fmt.Errorf("%s --version printed %q, which names no version", postgres, strings.TrimSpace(line))
	}
	return strconv.Atoi(m[1])
}
