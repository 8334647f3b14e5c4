package cdc_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// TestCheckServerSettings needs clusters of its own, and changes one of them
// into a standby at the end.
func TestCheckServerSettings(t *testing.T) {
	t.Parallel()
	s := pgtest.Own(t, map[string]string{
		"wal_level": "replica", "max_replication_slots": "2", "max_wal_senders": "8", "max_slot_wal_keep_size": "1GB",
	})
	u := s.URL("postgres")
	pgtest.Exec(t, u, seats, `SELECT pg_create_physical_replication_slot('standby')`)
	want := []cdc.Finding{
		{
			Check: "wal_level", Level: cdc.Fatal, Text: "wal_level is replica; changes can only be read with logical",
			Remedy: "ALTER SYSTEM SET wal_level = logical, then restart the server" +
				" (a managed service has a parameter for it, such as rds.logical_replication = 1)",
		},
		{
			Check: "slots", Level: cdc.Fatal, Text: "1 of 2 max_replication_slots are in use, and the run needs 2 more",
			Remedy: "set max_replication_slots to at least 3 and restart the server, or drop one that nobody reads:" +
				" SELECT slot_name, active, wal_status FROM pg_replication_slots",
		},
	}
	if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, u, nil))); diff != "" {
		t.Errorf("Check(wal_level=replica, one slot left) (-want +got):\n%s", diff)
	}

	// The services' own remedies.
	for role, remedy := range map[string]string{
		"rdsadmin":       "set rds.logical_replication = 1 in the parameter group and reboot the instance",
		"cloudsqladmin":  "set the flag cloudsql.logical_decoding=on; the instance restarts",
		"azure_pg_admin": "set the server parameter wal_level to logical and restart the server",
	} {
		pgtest.Exec(t, u, "CREATE ROLE "+role)
		want[0].Remedy = remedy
		if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, u, nil))); diff != "" {
			t.Errorf("Check(wal_level=replica with role %s) (-want +got):\n%s", role, diff)
		}
		pgtest.Exec(t, u, "DROP ROLE "+role)
	}

	pgtest.Exec(t, u, `ALTER SYSTEM SET wal_level = logical`, `SELECT pg_drop_replication_slot('standby')`, `ALTER SYSTEM SET max_wal_senders = 0`)
	if err := s.Restart(t.Context(), pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	want = []cdc.Finding{
		{
			Check: "connection", Level: cdc.Fatal, Object: fmt.Sprintf("127.0.0.1:%d", s.Port()),
			Text: "no replication connection: ", Remedy: "close connections, or raise max_connections, max_wal_senders or the role's CONNECTION LIMIT",
		},
		{
			Check: "senders", Level: cdc.Fatal, Text: "0 of 0 max_wal_senders are in use, and the run needs 1 more",
			Remedy: "set max_wal_senders to at least 1 and restart the server, or end a replication connection:" +
				" SELECT pid, application_name, client_addr FROM pg_stat_replication",
		},
	}
	if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, u, nil)), ignoreAddress); diff != "" {
		t.Errorf("Check(max_wal_senders=0) (-want +got):\n%s", diff)
	}

	pgtest.Exec(t, u, `ALTER SYSTEM RESET ALL`, `ALTER SYSTEM SET wal_level = logical`)
	if err := os.WriteFile(filepath.Join(s.Dir(), "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context(), pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	want = []cdc.Finding{{
		Check: "hot_standby_feedback", Level: cdc.Warning,
		Text:   "hot_standby_feedback is off and primary_slot_name is empty: a vacuum on the primary may invalidate the slot",
		Remedy: "set hot_standby_feedback = on, and primary_slot_name to a physical slot of the primary, and reload",
	}, {
		Check: "publication", Level: cdc.Fatal, Object: "rowcall_postgres",
		Text:   `publication "rowcall_postgres" does not exist, and cannot be created on a standby`,
		Remedy: `on the primary: CREATE PUBLICATION "rowcall_postgres" FOR ALL TABLES WITH (publish_via_partition_root = true)`,
	}}
	if s.Version() < 16 {
		want = []cdc.Finding{{
			Check: "standby", Level: cdc.Fatal, Text: "the server is a standby, and only Postgres 16 and later can read changes from one",
			Remedy: "connect to the primary; in a URL with several hosts, target_session_attrs=read-write picks it",
		}}
	}
	if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, u, nil))); diff != "" {
		t.Errorf("Check(standby) (-want +got):\n%s", diff)
	}
}

// ignoreAddress makes findings about the connection, whose texts hold a port
// and the server's own words, equal if they begin alike.
var ignoreAddress = cmp.Transformer("withoutAddress", func(f cdc.Finding) string {
	if f.Check == "connection" {
		f.Object, f.Text = "", f.Text[:min(len(f.Text), len("no replication connection: "))]
	}
	return fmt.Sprintf("%s %s %q\n%s\n%s", f.Check, f.Level, f.Object, f.Text, f.Remedy)
})

// TestCheckConnection expects one fatal finding with a remedy, and the password
// nowhere.
func TestCheckConnection(t *testing.T) {
	t.Parallel()
	s := pgtest.Own(t, nil)
	hba := filepath.Join(s.Dir(), "data", "pg_hba.conf")
	lines, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	rules := "host all secret 127.0.0.1/32 scram-sha-256\nhost all banned 127.0.0.1/32 reject\n"
	if err := os.WriteFile(hba, append([]byte(rules), lines...), 0o600); err != nil {
		t.Fatal(err)
	}
	u := s.URL("postgres")
	pgtest.Exec(t, u, seats, `CREATE ROLE secret LOGIN REPLICATION SUPERUSER PASSWORD 'right'`, `CREATE ROLE banned LOGIN`,
		`CREATE ROLE nologin`, `CREATE ROLE outsider LOGIN`, `CREATE DATABASE closed`, `REVOKE CONNECT ON DATABASE closed FROM PUBLIC`,
		`SELECT pg_reload_conf()`)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	empty := t.TempDir()
	at := fmt.Sprintf("127.0.0.1:%d", s.Port())

	if got := atLeast(cdc.Warning, check(t, "postgres://secret:right@"+at+"/postgres", nil)); got != nil {
		t.Fatalf("Check(right password) = %v, want no warning", got)
	}
	// What Amazon's servers allow to members, this one does not.
	pgtest.Exec(t, u, `CREATE ROLE rds_replication`, `CREATE ROLE member LOGIN IN ROLE rds_replication; GRANT SELECT ON seats TO member`)
	want := []cdc.Finding{{
		Check: "connection", Level: cdc.Fatal, Text: `no replication connection: `, Remedy: `ALTER ROLE "member" REPLICATION`,
	}}
	got := atLeast(cdc.Warning, check(t, "postgres://member@"+at+"/postgres", &cdc.Options{Snapshot: cdc.SnapshotOnly}))
	if diff := cmp.Diff(want, got, ignoreAddress); diff != "" {
		t.Errorf("Check(member of rds_replication) (-want +got):\n%s", diff)
	}

	for name, tc := range map[string]struct {
		url, text, remedy string
	}{
		"wrong password": {
			url:  "postgres://secret:hunter2@" + at + "/postgres",
			text: `cannot connect to database "postgres" at ` + at + ` as role "secret": password authentication failed for user "secret"`, remedy: "check the password in the URL",
		},
		"no password": {
			url:  "postgres://secret@" + at + "/postgres",
			text: `as role "secret": `, remedy: "no password was given: put it into the URL, PGPASSWORD or the password file",
		},
		"unknown database": {
			url:  "postgres://postgres:hunter2@" + at + "/shop",
			text: `database "shop" does not exist`, remedy: "check the database in the URL",
		},
		"unknown role": {
			url:  "postgres://nobody:hunter2@" + at + "/postgres",
			text: `role "nobody" does not exist`, remedy: `check the user in the URL, or CREATE ROLE "nobody" LOGIN REPLICATION`,
		},
		"role without LOGIN": {
			url:  "postgres://nologin:hunter2@" + at + "/postgres",
			text: `role "nologin" is not permitted to log in`, remedy: `ALTER ROLE "nologin" LOGIN`,
		},
		"rejected by pg_hba.conf": {
			url:  "postgres://banned:hunter2@" + at + "/postgres?sslmode=disable",
			text: `no encryption`, remedy: "set sslmode=require if the server admits only TLS, else add a line for role banned and database postgres to pg_hba.conf",
		},
		"rejected by pg_hba.conf, though TLS was tried": {
			url:  "postgres://banned:hunter2@" + at + "/postgres",
			text: `pg_hba.conf rejects connection`, remedy: "add a line for role banned and database postgres to pg_hba.conf",
		},
		"no CONNECT": {
			url:  "postgres://outsider:hunter2@" + at + "/closed",
			text: `permission denied for database "closed"`, remedy: `GRANT CONNECT ON DATABASE "closed" TO "outsider"`,
		},
		"refused": {
			url:  "postgres://app:hunter2@127.0.0.1:1/shop",
			text: `cannot connect to database "shop" at 127.0.0.1:1 as role "app": the connection was refused`, remedy: "check that Postgres runs there",
		},
		"unknown host": {
			url:  "postgres://app:hunter2@nowhere.invalid/shop",
			text: `host "nowhere.invalid": `, remedy: "check the host name",
		},
		"no socket": {
			url:  "postgres://app:hunter2@/shop?host=" + empty,
			text: "there is no socket", remedy: "unix_socket_directories",
		},
		"server without TLS": {
			url:  "postgres://app:hunter2@" + at + "/postgres?sslmode=require",
			text: "the server does not speak TLS", remedy: "sslmode=disable",
		},
		"no answer": {
			url:  "postgres://app:hunter2@" + silent.Addr().String() + "/shop?connect_timeout=1&sslmode=disable",
			text: "no answer in time", remedy: "check the host, the port and firewalls",
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			got := check(t, tc.url, nil)
			if len(got) != 1 || got[0].Check != "connection" || got[0].Level != cdc.Fatal ||
				!strings.Contains(got[0].Text, tc.text) || !strings.Contains(got[0].Remedy, tc.remedy) {
				t.Errorf("Check(%s) =\n%v\nwant one fatal finding with %q and remedy %q", tc.url, got, tc.text, tc.remedy)
			}
			if text := fmt.Sprintf("%+v", got); strings.Contains(text, "hunter2") {
				t.Errorf("Check(%s) shows the password: %s", tc.url, text)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("Check(%s) took %s", tc.url, took)
			}
		})
	}
}
