//go:build unix

package pgserver_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/pgserver"
)

func TestMain(m *testing.M) {
	if os.Getenv(orphanVariable) != "" {
		beParent()
		return
	}
	m.Run()
}

func needsServer(t *testing.T) {
	t.Helper()
	_, err := pgserver.Find()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

func start(t *testing.T, opts *pgserver.Options) *pgserver.Server {
	t.Helper()
	needsServer(t)
	s, err := pgserver.Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("Start(%+v) = %v", opts, err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Stop() = %v", err)
		}
	})
	return s
}

// tempDir is t.TempDir that other users can enter, since the cluster of a root
// process runs as another.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// query returns the only value of the only row.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	defer conn.Close(t.Context())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func run(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestStartAcceptsConnectionsOnBothAddresses(t *testing.T) {
	s := start(t, &pgserver.Options{Settings: map[string]string{"work_mem": "5MB"}})

	for name, url := range map[string]string{"tcp": s.URL("postgres"), "socket": s.SocketURL("postgres")} {
		t.Run(name, func(t *testing.T) {
			for sql, want := range map[string]string{
				"SHOW wal_level":             "logical",
				"SHOW max_wal_senders":       "20",
				"SHOW max_replication_slots": "20",
				"SHOW fsync":                 "off",
				"SHOW work_mem":              "5MB",
				"SHOW server_encoding":       "UTF8",
				"SHOW lc_collate":            "C",
				"SHOW listen_addresses":      "127.0.0.1",
				"SELECT current_user::text":  "postgres",
				"SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user": "true",
			} {
				if sql == "SHOW lc_collate" && s.Version() >= 16 {
					continue // no longer a parameter
				}
				if got := query(t, url, sql); got != want {
					t.Errorf("%s = %q, want %q", sql, got, want)
				}
			}
		})
	}
	if got := query(t, s.URL("postgres"), "SELECT (current_setting('server_version_num')::int / 10000)::text"); got != itoa(s.Version()) {
		t.Errorf("Version() = %d, the server says %s", s.Version(), got)
	}
	if got := query(t, s.URL("postgres"), "SHOW port"); got != itoa(s.Port()) {
		t.Errorf("Port() = %d, the server says %s", s.Port(), got)
	}
}

// One cluster does for all that leaves it as good as new.
func TestServerStopsAndStartsAgain(t *testing.T) {
	s := start(t, &pgserver.Options{Settings: map[string]string{"wal_level": "replica"}})
	t.Run("restart keeps port and data", func(t *testing.T) { restartKeepsPortAndData(t, s) })
	t.Run("ALTER SYSTEM takes effect at restart", func(t *testing.T) { alterSystemTakesEffectAtRestart(t, s) })
	t.Run("halted server refuses connections until Resume", func(t *testing.T) { haltedServerRefusesConnectionsUntilResume(t, s) })
	t.Run("Halt that gives up does not confuse Resume", func(t *testing.T) { haltThatGivesUpDoesNotConfuseResume(t, s) })
	t.Run("the start of another spares it", func(t *testing.T) { sweepSparesLivingClusters(t, s) })
}

func restartKeepsPortAndData(t *testing.T, s *pgserver.Server) {
	run(t, s.URL("postgres"), "CREATE TABLE kept (mode text)")
	for _, mode := range []pgserver.Mode{pgserver.Fast, pgserver.Immediate} {
		t.Run(mode.String(), func(t *testing.T) {
			run(t, s.URL("postgres"), "INSERT INTO kept VALUES ('"+mode.String()+"')")
			before, url := query(t, s.URL("postgres"), "SELECT pg_postmaster_start_time()::text"), s.URL("postgres")
			if err := s.Restart(t.Context(), mode); err != nil {
				t.Fatalf("Restart(%s) = %v", mode, err)
			}
			if got := s.URL("postgres"); got != url {
				t.Errorf("URL after Restart(%s) = %s, want %s", mode, got, url)
			}
			if got := query(t, url, "SELECT pg_postmaster_start_time()::text"); got == before {
				t.Errorf("Restart(%s): the server has not been started anew", mode)
			}
			if got := query(t, url, "SELECT count(*)::text FROM kept WHERE mode = '"+mode.String()+"'"); got != "1" {
				t.Errorf("Restart(%s): %s rows of the last commit, want 1", mode, got)
			}
			log := s.LogTail(10_000) // each connection that comes too early is two lines
			recovered := strings.Contains(log, "not properly shut down")
			if want := mode == pgserver.Immediate; recovered != want {
				t.Errorf("Restart(%s): crash recovery ran: %t, want %t; log:\n%s", mode, recovered, want, log)
			}
		})
	}
}

func alterSystemTakesEffectAtRestart(t *testing.T, s *pgserver.Server) {
	if got := query(t, s.URL("postgres"), "SHOW wal_level"); got != "replica" {
		t.Fatalf("wal_level = %s, want replica", got)
	}
	run(t, s.URL("postgres"), "ALTER SYSTEM SET wal_level = 'logical'")
	if err := s.Restart(t.Context(), pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s.URL("postgres"), "SHOW wal_level"); got != "logical" {
		t.Errorf("wal_level after ALTER SYSTEM and Restart = %s, want logical", got)
	}
}

func haltedServerRefusesConnectionsUntilResume(t *testing.T, s *pgserver.Server) {
	for range 2 { // halting twice is fine
		if err := s.Halt(t.Context(), pgserver.Immediate); err != nil {
			t.Fatalf("Halt() = %v", err)
		}
	}
	if conn, err := pgx.Connect(t.Context(), s.URL("postgres")); err == nil {
		conn.Close(t.Context())
		t.Error("a halted server accepts connections")
	}
	for range 2 {
		if err := s.Resume(t.Context()); err != nil {
			t.Fatalf("Resume() = %v", err)
		}
	}
	query(t, s.URL("postgres"), "SELECT 'up'")
}

func haltThatGivesUpDoesNotConfuseResume(t *testing.T, s *pgserver.Server) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Halt(ctx, pgserver.Fast); !errors.Is(err, context.Canceled) {
		// The server may have been quicker than the check of ctx.
		if err != nil {
			t.Fatalf("Halt(cancelled) = %v, want context.Canceled", err)
		}
	}
	if err := s.Resume(t.Context()); err != nil {
		t.Fatalf("Resume() = %v", err)
	}
	query(t, s.URL("postgres"), "SELECT 'up'")
}

func TestStopRemovesTheDirectory(t *testing.T) {
	s := start(t, nil)
	if _, err := os.Stat(s.Dir()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), s.URL("postgres")) // a client that lingers
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())

	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Stop, Stat(%s) = %v, want not exist", s.Dir(), err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", itoa(s.Port())))
	if err != nil {
		t.Errorf("after Stop the port is still taken: %v", err)
	} else {
		l.Close()
	}
	for name, call := range map[string]func() error{
		"Restart": func() error { return s.Restart(t.Context(), pgserver.Fast) },
		"Halt":    func() error { return s.Halt(t.Context(), pgserver.Fast) },
		"Resume":  func() error { return s.Resume(t.Context()) },
	} {
		if err := call(); !errors.Is(err, pgserver.ErrStopped) {
			t.Errorf("%s() after Stop = %v, want ErrStopped", name, err)
		}
	}
}

func TestStopWithoutPatienceStillStopsAndKeepLeavesTheDirectory(t *testing.T) {
	dir := filepath.Join(tempDir(t), "pg")
	s := start(t, &pgserver.Options{Dir: dir, Keep: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Stop(ctx) // whether it was in time or not
	if conn, err := pgx.Connect(t.Context(), s.URL("postgres")); err == nil {
		conn.Close(t.Context())
		t.Error("the server outlived Stop")
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "PG_VERSION")); err != nil {
		t.Errorf("after Stop with Keep: %v", err)
	}
}

func TestDirMustBeEmpty(t *testing.T) {
	needsServer(t)
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pgserver.Start(t.Context(), &pgserver.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("Start in a directory with a file: error %v, want one that names the file", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("Start removed a stranger's file: %v", err)
	}
}

func TestLongDirStillGetsASocketAndFsyncCanBeTurnedOn(t *testing.T) {
	dir := filepath.Join(tempDir(t), strings.Repeat("long", 20), "pg")
	s := start(t, &pgserver.Options{Dir: dir, Fsync: true})
	if got := query(t, s.SocketURL("postgres"), "SHOW fsync"); got != "on" {
		t.Errorf("SHOW fsync = %s, want on", got)
	}
}

func TestFailedStartQuotesTheLogAndLeavesNothing(t *testing.T) {
	needsServer(t)
	for name, tc := range map[string]struct {
		opts pgserver.Options
		want string
	}{
		"unknown setting": {
			opts: pgserver.Options{Settings: map[string]string{"no_such_setting": "1"}},
			want: `unrecognized configuration parameter "no_such_setting"`,
		},
		"bad value": {
			opts: pgserver.Options{Settings: map[string]string{"wal_level": "loud"}},
			want: `invalid value for parameter "wal_level"`,
		},
		"no binaries": {
			opts: pgserver.Options{BinDir: "/bin"},
			want: "/bin/postgres",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(tempDir(t), "pg")
			tc.opts.Dir = dir
			s, err := pgserver.Start(t.Context(), &tc.opts)
			if err == nil {
				_ = s.Stop(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Start() = %v, want an error that contains %q", err, tc.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Stat(%s) after a failed start = %v, want not exist", dir, err)
			}
		})
	}
}

func TestStartSaysThatThePortIsTaken(t *testing.T) {
	needsServer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	s, err := pgserver.Start(t.Context(), &pgserver.Options{Port: port})
	if err == nil {
		_ = s.Stop(t.Context())
	}
	if want := "port " + itoa(port) + " of 127.0.0.1 is taken"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Start(Port: %d) = %v, want an error that contains %q", port, err, want)
	}
}

// Wherever the start is when its context ends.
func TestStartObeysItsContext(t *testing.T) {
	needsServer(t)
	for _, within := range []time.Duration{time.Millisecond, 4 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		dir := filepath.Join(tempDir(t), "pg")
		s, err := pgserver.Start(ctx, &pgserver.Options{Dir: dir})
		if err == nil {
			_ = s.Stop(t.Context())
			t.Skipf("the cluster was up within %s", within)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start(%s) = %v, want context.DeadlineExceeded", within, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat(%s) after a failed start = %v, want not exist", dir, err)
		}
	}
}

func TestRootNeedsAReachableTemporaryDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root drops to another user")
	}
	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Run("default falls back", func(t *testing.T) {
		t.Setenv("TMPDIR", closed)
		s := start(t, nil)
		if strings.HasPrefix(s.Dir(), closed) {
			t.Errorf("Dir() = %s, in a directory that the server's user cannot enter", s.Dir())
		}
	})
	t.Run("a given one is an error", func(t *testing.T) {
		needsServer(t)
		s, err := pgserver.Start(t.Context(), &pgserver.Options{Dir: filepath.Join(closed, "pg")})
		if err == nil {
			_ = s.Stop(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), "cannot enter "+closed) {
			t.Errorf("Start below a 0700 directory of root = %v, want an error that names %s", err, closed)
		}
	})
}
