package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/rowcall/rowcall/internal/pgserver"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pgfetch:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("want one argument, a major version of PostgreSQL such as 17")
	}
	major, err := strconv.Atoi(args[0])
	if err != nil || major < 10 || major > 99 {
		return fmt.Errorf("%q is not a major version of PostgreSQL, such as 17", args[0])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := binaries(ctx, major, installed(major))
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

// variable is the environment variable that overrides where a version is.
func variable(major int) string { return fmt.Sprintf("ROWCALL_PG_BIN_%d", major) }

// installed are the places where packages of operating systems put a version.
func installed(major int) []string {
	return []string{
		fmt.Sprintf("/usr/lib/postgresql/%d/bin", major),
		fmt.Sprintf("/usr/pgsql-%d/bin", major),
		fmt.Sprintf("/opt/homebrew/opt/postgresql@%d/bin", major),
		fmt.Sprintf("/usr/local/opt/postgresql@%d/bin", major),
	}
}

// binaries finds or fetches the server binaries of a version.
func binaries(ctx context.Context, major int, places []string) (string, error) {
	if dir := os.Getenv(variable(major)); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		if err := is(ctx, dir, major); err != nil {
			return "", fmt.Errorf("$%s: %w", variable(major), err)
		}
		return dir, nil
	}
	for _, dir := range places {
		if is(ctx, dir, major) == nil {
			return dir, nil
		}
	}
	what, err := spec(major)
	if err != nil {
		return "", fmt.Errorf("%w; set %s to the directory of its server binaries", err, variable(major))
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, packages[major])
	dir := filepath.Join(home, "native", "bin")
	if is(ctx, dir, major) == nil {
		return dir, nil
	}
	if err := fetch(ctx, what, home); err != nil {
		return "", fmt.Errorf("fetch PostgreSQL %d: %w; or set %s to the directory of its server binaries", major, err, variable(major))
	}
	if err := is(ctx, dir, major); err != nil {
		return "", fmt.Errorf("what was fetched as PostgreSQL %d cannot be used: %w; remove %s to fetch it again", major, err, home)
	}
	return dir, nil
}

// is returns nil if dir holds binaries of this version that work here.
func is(ctx context.Context, dir string, major int) error {
	got, err := pgserver.Probe(ctx, dir)
	if err == nil && got != major {
		err = fmt.Errorf("PostgreSQL in %s is version %d, want %d", dir, got, major)
	}
	return err
}

// cacheDir returns a directory for binaries that servers can be started from:
// root's own is closed to the user that they run as.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil && os.Geteuid() != 0 {
		return "", fmt.Errorf("where to keep PostgreSQL: %w", err)
	}
	if err == nil {
		dir := filepath.Join(base, "rowcall", "postgres")
		if err := openDir(dir); err != nil {
			return "", err
		}
		if pgserver.Reachable(dir) == nil {
			return dir, nil
		}
	}
	dir := "/var/cache/rowcall/postgres"
	if err := openDir(dir); err != nil {
		return "", err
	}
	return dir, pgserver.Reachable(dir)
}

func openDir(dir string) error {
	return os.MkdirAll(dir, 0o755) //nolint:gosec // servers run as another user
}
