package pgtest

import (
	"context"
	"errors"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/sharedtest"
)

// URLVariable names the environment variable that makes [Database] use a given
// server.
const URLVariable = "ROWCALL_TEST_DATABASE_URL"

// shared is the binary's one cluster. It is package state because TestMain and
// the tests have nothing else in common; nothing outside this file touches it.
var shared = sharedtest.Server[*pgserver.Server]{
	Package: "pgtest",
	Start: func(ctx context.Context) (*pgserver.Server, error) {
		return pgserver.Start(ctx, &pgserver.Options{Settings: map[string]string{
			"max_connections":           "200",
			"max_prepared_transactions": "20",
		}})
	},
	Stop: func(s *pgserver.Server) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return s.Stop(ctx)
	},
}

// Main runs the tests and stops the shared cluster. It is the whole body of a
// TestMain, and does not return.
func Main(m *testing.M) { os.Exit(Wrap(m).Run()) }

// Wrap returns a Runner that runs m and then stops the shared cluster, for a
// TestMain that hands m on: testscript.Main(pgtest.Wrap(m), …).
func Wrap(m sharedtest.Runner) sharedtest.Runner { return shared.Wrap(m) }

// sharedURL returns the URL of the maintenance database that Database works
// from, and starts the shared cluster if need be.
func sharedURL(t testing.TB) *url.URL {
	t.Helper()
	base := os.Getenv(URLVariable)
	if base == "" {
		requireBinaries(t)
		base = shared.Get(t).URL("postgres")
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		t.Fatalf("%s is not a postgres:// URL", URLVariable) // without its value: it may hold a password
	}
	return u
}

// Own starts a cluster for this test alone and stops it at the test's end. The
// settings are those of postgresql.conf; nil means the defaults of pgserver. The
// test may restart it as it likes.
func Own(t testing.TB, settings map[string]string) *pgserver.Server {
	t.Helper()
	requireBinaries(t)
	s, err := pgserver.Start(t.Context(), &pgserver.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", s.LogTail(20))
		}
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop the test's PostgreSQL: %v", err)
		}
	})
	return s
}

// RequireVersion skips the test where the installed server is older than a major
// version. It is for tests with servers of their own, before they start one.
func RequireVersion(t testing.TB, major int, why string) {
	t.Helper()
	requireBinaries(t)
	has, err := pgserver.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if has < major {
		t.Skipf("needs Postgres %d, has %d: %s", major, has, why)
	}
}

func requireBinaries(t testing.TB) {
	t.Helper()
	_, err := pgserver.Find()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true" || !errors.Is(err, pgserver.ErrNotFound) || os.Getenv(pgserver.BinDirVariable) != "":
		t.Fatal(err)
	default:
		t.Skipf("needs PostgreSQL: %v", err)
	}
}
