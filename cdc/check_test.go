package cdc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// A bench is a database, and a role in it that starts with LOGIN only. The words
// {role}, {admin}, {db} and {slot} stand for names in statements and expectations.
type bench struct {
	url   string // of a superuser
	role  string
	words *strings.Replacer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{url: pgtest.Database(t), role: fmt.Sprintf("app_%08x", rand.Uint32())}
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	db := strings.TrimPrefix(u.Path, "/")
	b.words = strings.NewReplacer("{role}", b.role, "{db}", db, "{slot}", "rowcall_"+db, "{admin}", u.User.Username())
	pgtest.Exec(t, b.url, "CREATE ROLE "+b.role+" LOGIN")
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, b.url)
		if err != nil {
			t.Errorf("Connect: %v", err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, b.words.Replace(`DROP OWNED BY {role} CASCADE; DROP ROLE {role}`), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Errorf("drop the test's role: %v", err)
		}
	})
	return b
}

func (b *bench) exec(t *testing.T, sql ...string) {
	t.Helper()
	for _, s := range sql {
		pgtest.Exec(t, b.url, b.words.Replace(s))
	}
}

// as returns the database's URL for another role.
func (b *bench) as(t *testing.T, role string) string {
	t.Helper()
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}

// check calls Check and applies what holds of all findings.
func check(t *testing.T, databaseURL string, opts *cdc.Options) []cdc.Finding {
	t.Helper()
	findings, err := cdc.Check(t.Context(), databaseURL, opts)
	if err != nil {
		t.Fatalf("Check(%+v) = %v, want findings", opts, err)
	}
	if len(findings) == 0 {
		t.Fatalf("Check(%+v) = no findings, want at least the connection's", opts)
	}
	for _, f := range findings {
		if f.Check == "" || f.Text == "" || strings.HasSuffix(f.Text, ".") || (f.Level == cdc.OK) != (f.Remedy == "") {
			t.Errorf("Check(%+v) has %+v; want a check, a text without a period, and a remedy unless it is ok", opts, f)
		}
	}
	return findings
}

// atLeast keeps the findings of a level and above.
func atLeast(level cdc.Level, findings []cdc.Finding) []cdc.Finding {
	var kept []cdc.Finding
	for _, f := range findings {
		if f.Level >= level {
			kept = append(kept, f)
		}
	}
	return kept
}

func (b *bench) expand(findings []cdc.Finding) []cdc.Finding {
	var out []cdc.Finding
	for _, f := range findings {
		f.Object, f.Text, f.Remedy = b.words.Replace(f.Object), b.words.Replace(f.Text), b.words.Replace(f.Remedy)
		out = append(out, f)
	}
	return out
}

const seats = `CREATE TABLE seats (id int PRIMARY KEY, price numeric)`

// TestCheckRules compares all warnings and fatal findings of a database, then
// does what the remedy says and expects that nothing fatal is left.
func TestCheckRules(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		setup  []string
		role   bool // connect as {role} rather than as a superuser
		opts   cdc.Options
		want   []cdc.Finding
		remedy []string // statements of the remedies
		since  int      // the first major version with this feature
	}{
		"nothing wrong": {
			setup: []string{seats},
		},
		"nothing wrong for an owner": {
			setup: []string{
				`ALTER ROLE {role} REPLICATION; GRANT CREATE ON DATABASE {db} TO {role}`,
				seats, `ALTER TABLE seats OWNER TO {role}`,
			},
			role: true,
		},
		"no REPLICATION": {
			setup: []string{`GRANT CREATE ON DATABASE {db} TO {role}`, seats, `ALTER TABLE seats OWNER TO {role}`},
			role:  true,
			want: []cdc.Finding{{
				Check: "replication_privilege", Level: cdc.Fatal, Object: "{role}",
				Text:   `role "{role}" lacks the REPLICATION privilege`,
				Remedy: `ALTER ROLE "{role}" REPLICATION, as a superuser`,
			}},
			remedy: []string{`ALTER ROLE "{role}" REPLICATION`},
		},
		"unknown tables": {
			setup: []string{seats, `CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY)`},
			opts:  cdc.Options{Tables: []string{"seat", "Shop.Orders", "shp.*", "elsewhere.entirely"}},
			want: []cdc.Finding{
				{Check: "tables", Level: cdc.Fatal, Object: "public.seat", Text: "no table matches public.seat", Remedy: "did you mean public.seats?"},
				{Check: "tables", Level: cdc.Fatal, Object: "Shop.Orders", Text: "no table matches Shop.Orders", Remedy: "did you mean shop.orders?"},
				{Check: "tables", Level: cdc.Fatal, Object: "shp.*", Text: "no table matches shp.*", Remedy: "did you mean shop.*?"},
				{
					Check: "tables", Level: cdc.Fatal, Object: "elsewhere.entirely", Text: "no table matches elsewhere.entirely",
					Remedy: `check the name, and that it is in database "{db}"`,
				},
			},
			remedy: []string{
				`CREATE TABLE seat (id int PRIMARY KEY)`, `CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."Orders" (id int PRIMARY KEY)`,
				`CREATE SCHEMA shp; CREATE TABLE shp.t (id int PRIMARY KEY)`,
				`CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.entirely (id int PRIMARY KEY)`,
			},
		},
		"no tables for a superuser": {
			want: []cdc.Finding{{
				Check: "tables", Level: cdc.Warning, Text: `database "{db}" has no tables yet`,
				Remedy: "check the database in the URL; tables that are created later are read",
			}},
		},
		"no tables": {
			setup: []string{`ALTER ROLE {role} REPLICATION; GRANT CREATE ON DATABASE {db} TO {role}`},
			role:  true,
			want: []cdc.Finding{{
				Check: "tables", Level: cdc.Fatal, Text: `there is no table to read in database "{db}"`,
				Remedy: "check the database in the URL and the publication, or name tables",
			}},
			remedy: []string{seats, `ALTER TABLE seats OWNER TO {role}`},
		},
		"unlogged by name": {
			setup: []string{`CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)`},
			opts:  cdc.Options{Tables: []string{"cache"}},
			want: []cdc.Finding{{
				Check: "tables", Level: cdc.Fatal, Object: "public.cache",
				Text:   "public.cache is an unlogged table, and Postgres cannot publish it",
				Remedy: `ALTER TABLE "public"."cache" SET LOGGED, or leave it out`,
			}},
			remedy: []string{`ALTER TABLE "public"."cache" SET LOGGED`},
		},
		"what is no table": {
			setup: []string{
				seats, `CREATE VIEW v AS TABLE seats`, `CREATE MATERIALIZED VIEW m AS TABLE seats`, `CREATE SEQUENCE s`,
				`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE f (id int) SERVER far`,
			},
			opts: cdc.Options{Tables: []string{"*", "v", "m", "s", "f", "pg_catalog.pg_class"}},
			want: []cdc.Finding{
				{Check: "tables", Level: cdc.Fatal, Object: "pg_catalog.pg_class", Text: "pg_catalog.pg_class is a system table, and Postgres cannot publish it", Remedy: "leave it out"},
				{Check: "tables", Level: cdc.Fatal, Object: "public.f", Text: "public.f is a foreign table, and Postgres cannot publish it", Remedy: "read it from the database that holds it"},
				{Check: "tables", Level: cdc.Fatal, Object: "public.m", Text: "public.m is a materialized view, and Postgres cannot publish it", Remedy: "ask for the tables it reads from"},
				{Check: "tables", Level: cdc.Fatal, Object: "public.s", Text: "public.s is a sequence, and Postgres cannot publish it", Remedy: "leave it out"},
				{Check: "tables", Level: cdc.Fatal, Object: "public.v", Text: "public.v is a view, and Postgres cannot publish it", Remedy: "ask for the tables it reads from"},
			},
		},
		"no primary key": {
			setup: []string{`CREATE TABLE "log ""1""" (line text)`},
			opts:  cdc.Options{Tables: []string{`"log ""1"""`}},
			want: []cdc.Finding{{
				Check: "primary_key", Level: cdc.Warning, Object: `public.log "1"`,
				Text: `public.log "1" has no primary key: its inserts arrive without a key, and UPDATE and DELETE on it fail in Postgres,` +
					` for every application, once it is published` +
					` (cannot update table "log "1"" because it does not have a replica identity)`,
				Remedy: `ALTER TABLE "public"."log ""1""" ADD PRIMARY KEY (…), or ALTER TABLE "public"."log ""1""" REPLICA IDENTITY FULL`,
			}},
			remedy: []string{`ALTER TABLE "public"."log ""1""" REPLICA IDENTITY FULL`},
		},
		"no primary key, but only inserts are published": {
			setup: []string{`CREATE TABLE log (line text)`, `CREATE PUBLICATION {slot} FOR TABLE log WITH (publish = 'insert, truncate')`},
			want: []cdc.Finding{
				{
					Check: "publication", Level: cdc.Warning, Object: "{slot}",
					Text:   `publication "{slot}" does not send updates, deletes`,
					Remedy: `ALTER PUBLICATION "{slot}" SET (publish = 'insert, update, delete, truncate') if they are wanted`,
				},
				{
					Check: "primary_key", Level: cdc.Warning, Object: "public.log",
					Text:   "public.log has no primary key: its inserts arrive without a key",
					Remedy: `ALTER TABLE "public"."log" ADD PRIMARY KEY (…), or ALTER TABLE "public"."log" REPLICA IDENTITY FULL`,
				},
			},
		},
		"replica identities that do not work": {
			setup: []string{
				`CREATE TABLE a (id int PRIMARY KEY); ALTER TABLE a REPLICA IDENTITY NOTHING`,
				`CREATE TABLE b (id int PRIMARY KEY DEFERRABLE)`,
				`CREATE TABLE c (id int NOT NULL); CREATE UNIQUE INDEX i ON c (id); ALTER TABLE c REPLICA IDENTITY USING INDEX i; DROP INDEX i`,
				`CREATE TABLE d (id int NOT NULL UNIQUE); ALTER TABLE d REPLICA IDENTITY USING INDEX d_id_key`,
			},
			want: []cdc.Finding{
				{
					Check: "replica_identity", Level: cdc.Warning, Object: "public.a",
					Text: "public.a has REPLICA IDENTITY NOTHING: UPDATE and DELETE on it fail in Postgres, for every application, once it is published" +
						` (cannot update table "a" because it does not have a replica identity)`,
					Remedy: `ALTER TABLE "public"."a" REPLICA IDENTITY DEFAULT, or FULL`,
				},
				{
					Check: "replica_identity", Level: cdc.Warning, Object: "public.b",
					Text: "public.b has a deferrable primary key, which cannot be a replica identity:" +
						" UPDATE and DELETE on it fail in Postgres, for every application, once it is published" +
						` (cannot update table "b" because it does not have a replica identity)`,
					Remedy: `ALTER TABLE "public"."b" REPLICA IDENTITY FULL`,
				},
				{
					Check: "replica_identity", Level: cdc.Warning, Object: "public.c",
					Text: "public.c has a replica identity whose index is gone:" +
						" UPDATE and DELETE on it fail in Postgres, for every application, once it is published" +
						` (cannot update table "c" because it does not have a replica identity)`,
					Remedy: `ALTER TABLE "public"."c" REPLICA IDENTITY FULL`,
				},
			},
		},
		"partitions without replica identity": {
			setup: []string{
				`CREATE TABLE p (id int) PARTITION BY RANGE (id)`,
				`CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)`,
				`ALTER TABLE p REPLICA IDENTITY FULL; ALTER TABLE p2 REPLICA IDENTITY FULL`,
			},
			want: []cdc.Finding{{
				Check: "replica_identity", Level: cdc.Warning, Object: "public.p",
				Text: `1 of 2 partitions of public.p have no replica identity, such as "public"."p1":` +
					" UPDATE and DELETE on it fail in Postgres, for every application, once it is published" +
					` (cannot update table "p" because it does not have a replica identity)`,
				Remedy: `add a primary key to "public"."p", or ALTER TABLE "public"."p1" REPLICA IDENTITY FULL, and so for each partition`,
			}},
			remedy: []string{`ALTER TABLE "public"."p1" REPLICA IDENTITY FULL`},
		},
		"cannot create the publication": {
			setup: []string{`ALTER ROLE {role} REPLICATION`, seats, `GRANT SELECT ON seats TO {role}`},
			role:  true,
			opts:  cdc.Options{Tables: []string{"seats"}},
			want: []cdc.Finding{{
				Check: "publication", Level: cdc.Fatal, Object: "{slot}",
				Text: `publication "{slot}" does not exist, and role "{role}" cannot create it:` +
					` it lacks CREATE on database "{db}" and does not own public.seats`,
				Remedy: "as the owner of the tables, with CREATE on the database, or as a superuser:" +
					` CREATE PUBLICATION "{slot}" FOR TABLE "public"."seats" WITH (publish_via_partition_root = true)`,
			}},
			remedy: []string{`CREATE PUBLICATION "{slot}" FOR TABLE "public"."seats" WITH (publish_via_partition_root = true)`},
		},
		"cannot create the publication for all tables": {
			setup: []string{`ALTER ROLE {role} REPLICATION; GRANT CREATE ON DATABASE {db} TO {role}`, seats, `GRANT SELECT ON seats TO {role}`},
			role:  true,
			want: []cdc.Finding{{
				Check: "publication", Level: cdc.Fatal, Object: "{slot}",
				Text:   `publication "{slot}" does not exist, and role "{role}" cannot create it: it does not own public.seats`,
				Remedy: `as a superuser: CREATE PUBLICATION "{slot}" FOR ALL TABLES WITH (publish_via_partition_root = true)`,
			}},
			remedy: []string{`CREATE PUBLICATION "{slot}" FOR ALL TABLES WITH (publish_via_partition_root = true)`},
		},
		"publication does not cover": {
			setup: []string{seats, `CREATE TABLE "Wagons" (id int PRIMARY KEY)`, `CREATE PUBLICATION p FOR TABLE seats`},
			opts:  cdc.Options{Publication: "p", Tables: []string{"*"}},
			want: []cdc.Finding{{
				Check: "publication", Level: cdc.Fatal, Object: "p", Text: `publication "p" does not cover public.Wagons`,
				Remedy: `ALTER PUBLICATION "p" ADD TABLE "public"."Wagons", as an owner of both`,
			}},
			remedy: []string{`ALTER PUBLICATION "p" ADD TABLE "public"."Wagons"`},
		},
		"publication for all tables covers": {
			setup: []string{seats, `CREATE PUBLICATION {slot} FOR ALL TABLES`},
			opts:  cdc.Options{Tables: []string{"seats"}},
		},
		"publication for a schema covers": {
			setup: []string{seats, `CREATE PUBLICATION {slot} FOR TABLES IN SCHEMA public`},
			opts:  cdc.Options{Tables: []string{"seats"}},
			since: 15,
		},
		"partitioned table in a publication that renames": {
			setup: []string{
				`CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
				`CREATE PUBLICATION {slot} FOR TABLE p`,
			},
			opts: cdc.Options{Tables: []string{"p"}},
			want: []cdc.Finding{{
				Check: "publication", Level: cdc.Fatal, Object: "{slot}",
				Text:   `publication "{slot}" sends the changes of partitioned tables under the names of their partitions: public.p`,
				Remedy: `ALTER PUBLICATION "{slot}" SET (publish_via_partition_root = true), or ask for the partitions`,
			}},
			remedy: []string{`ALTER PUBLICATION "{slot}" SET (publish_via_partition_root = true)`},
		},
		"partitions stand for their root": {
			setup: []string{
				`CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
				`CREATE PUBLICATION {slot} FOR TABLE p`,
			},
			opts: cdc.Options{Tables: []string{"*"}},
		},
		"partition whose root is published": {
			setup: []string{
				`CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
				`CREATE PUBLICATION {slot} FOR ALL TABLES WITH (publish_via_partition_root = true)`,
			},
			opts: cdc.Options{Tables: []string{"p1"}},
			want: []cdc.Finding{{
				Check: "publication", Level: cdc.Fatal, Object: "{slot}",
				Text:   `publication "{slot}" sends the changes of public.p1 under the name of its root, public.p`,
				Remedy: "ask for public.p",
			}},
			remedy: []string{`ALTER PUBLICATION "{slot}" SET (publish_via_partition_root = false)`},
		},
		"no SELECT": {
			setup: []string{
				`ALTER ROLE {role} REPLICATION; CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY)`,
				`CREATE PUBLICATION {slot} FOR ALL TABLES`,
			},
			role: true,
			want: []cdc.Finding{{
				Check: "select_privilege", Level: cdc.Fatal, Object: "{role}",
				Text:   `role "{role}" may not read shop.orders, which a snapshot needs`,
				Remedy: `GRANT USAGE ON SCHEMA "shop" TO "{role}"; GRANT SELECT ON "shop"."orders" TO "{role}"; or take no snapshot`,
			}},
			remedy: []string{`GRANT USAGE ON SCHEMA "shop" TO "{role}"; GRANT SELECT ON "shop"."orders" TO "{role}"`},
		},
		"no SELECT, but no snapshot": {
			setup: []string{`ALTER ROLE {role} REPLICATION`, seats, `CREATE PUBLICATION {slot} FOR ALL TABLES`},
			role:  true,
			opts:  cdc.Options{Snapshot: cdc.SnapshotNever},
		},
		"row security": {
			setup: []string{
				`ALTER ROLE {role} REPLICATION`, seats, `GRANT SELECT ON seats TO {role}; ALTER TABLE seats ENABLE ROW LEVEL SECURITY`,
				`CREATE PUBLICATION {slot} FOR ALL TABLES`,
			},
			role: true,
			want: []cdc.Finding{{
				Check: "row_security", Level: cdc.Fatal, Object: "{role}",
				Text:   `row security policies apply to role "{role}" in public.seats: a snapshot would miss the rows they hide`,
				Remedy: `ALTER ROLE "{role}" BYPASSRLS, or take no snapshot`,
			}},
			remedy: []string{`ALTER ROLE "{role}" BYPASSRLS`},
		},
		"only a snapshot needs no publication": {
			setup: []string{`ALTER ROLE {role} REPLICATION`, seats, `GRANT SELECT ON seats TO {role}`},
			role:  true,
			opts:  cdc.Options{Snapshot: cdc.SnapshotOnly},
		},
		"physical slot": {
			setup: []string{seats, `SELECT pg_create_physical_replication_slot('{slot}_p')`},
			opts:  cdc.Options{Slot: "{slot}_p", Publication: "new"},
			want: []cdc.Finding{
				{
					Check: "slot", Level: cdc.Fatal, Object: "{slot}_p", Text: `slot "{slot}_p" is a physical one, which serves a standby`,
					Remedy: "choose another slot name",
				},
				{
					Check: "publication", Level: cdc.Fatal, Object: "new",
					Text: `publication "new" does not exist, but slot "{slot}_p" does:` +
						` a publication must be older than the slot that reads it`,
					Remedy: `name the publication that belongs to the slot, or SELECT pg_drop_replication_slot('{slot}_p') for a new start`,
				},
			},
			remedy: []string{`SELECT pg_drop_replication_slot('{slot}_p')`},
		},
		"slot of its own": {
			setup: []string{seats, `CREATE PUBLICATION {slot} FOR ALL TABLES`, `SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tc.since > serverVersion(t, b.url)/10000 {
				t.Skipf("needs Postgres %d", tc.since)
			}
			b.exec(t, tc.setup...)
			opts := tc.opts
			opts.Slot = b.words.Replace(opts.Slot)
			if strings.HasSuffix(opts.Slot, "_p") { // is not dropped with the database
				t.Cleanup(func() { dropSlot(t, b.url, opts.Slot) })
			}
			as := b.url
			if tc.role {
				as = b.as(t, b.role)
			}
			before := b.state(t)
			got := check(t, as, &opts)
			if diff := cmp.Diff(before, b.state(t)); diff != "" {
				t.Errorf("Check(%+v) has changed the database (-before +after):\n%s", opts, diff)
			}
			if diff := cmp.Diff(b.expand(tc.want), atLeast(cdc.Warning, got)); diff != "" {
				t.Errorf("Check(%+v), warnings and worse (-want +got):\n%s", opts, diff)
			}
			if len(tc.remedy) > 0 {
				b.exec(t, tc.remedy...)
				if left := atLeast(cdc.Fatal, check(t, as, &opts)); left != nil {
					t.Errorf("Check(%+v) after %q has %v, want nothing fatal", opts, tc.remedy, left)
				}
			}
		})
	}
}

func serverVersion(t *testing.T, databaseURL string) int {
	t.Helper()
	var version int
	if err := pgtest.Connect(t, databaseURL).QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version
}

// dropSlot does nothing if there is none.
func dropSlot(t *testing.T, databaseURL, slot string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Errorf("Connect: %v", err)
		return
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, slot); err != nil {
		t.Errorf("drop slot %s: %v", slot, err)
	}
}

// state is everything that a reader could leave behind.
func (b *bench) state(t *testing.T) []string {
	t.Helper()
	rows, err := pgtest.Connect(t, b.url).Query(t.Context(), `
		SELECT 'publication ' || to_jsonb(p)::text FROM pg_publication p
		UNION ALL SELECT 'published ' || to_jsonb(r)::text FROM pg_publication_rel r
		UNION ALL SELECT 'slot ' || jsonb_build_object('name', slot_name, 'restart', restart_lsn, 'confirmed', confirmed_flush_lsn)::text
		          FROM pg_replication_slots WHERE database = current_database()
		UNION ALL SELECT 'relation ' || oid::regclass || ' ' || relreplident::text || ' ' || coalesce(relacl::text, '') FROM pg_class
		UNION ALL SELECT 'role ' || to_jsonb(r)::text FROM pg_roles r WHERE rolname = $1
		ORDER BY 1`, b.role)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestCheckWarnsOfUpdatesThatWillFail quotes the sentence with which Postgres
// refuses them.
func TestCheckWarnsOfUpdatesThatWillFail(t *testing.T) {
	b := newBench(t)
	b.exec(t, `CREATE TABLE log (line text); INSERT INTO log VALUES ('a')`)
	warnings := atLeast(cdc.Warning, check(t, b.url, nil))
	if len(warnings) != 1 {
		t.Fatalf("Check(no primary key) = %v, want one warning", warnings)
	}
	b.exec(t, `CREATE PUBLICATION p FOR TABLE log`)
	_, err := pgtest.Connect(t, b.url).Exec(t.Context(), `UPDATE log SET line = 'b'`)
	_, quoted, _ := strings.Cut(strings.TrimSuffix(warnings[0].Text, ")"), "(")
	if err == nil || !strings.Contains(err.Error(), quoted) {
		t.Errorf("UPDATE = %v, want an error with the words that Check quoted: %q", err, quoted)
	}
}

func TestCheckInfo(t *testing.T) {
	b := newBench(t)
	b.exec(t, seats, `CREATE TABLE log (line text); ALTER TABLE log REPLICA IDENTITY FULL`,
		`CREATE UNLOGGED TABLE cache (id int)`, `ALTER DATABASE {db} SET synchronous_commit = off`)
	got := check(t, b.url, nil)
	var texts []string
	for _, f := range got {
		if f.Level <= cdc.Info && f.Check != "connection" && f.Check != "slots" && f.Check != "senders" && f.Check != "server_version" {
			texts = append(texts, f.Level.String()+" "+f.Check+": "+f.Text)
		}
	}
	var want []string
	for _, line := range []string{
		`ok wal_level: wal_level is logical`,
		`ok replication_privilege: role "{admin}" may replicate`,
		`ok slot: slot "{slot}" does not exist yet and will be created`,
		`info wal_retention: max_slot_wal_keep_size is -1: while no reader runs, slot "{slot}" keeps WAL until the disk is full`,
		`info tables: left out, since Postgres does not publish unlogged tables: public.cache`,
		`ok tables: 2 tables: public.log, public.seats`,
		`ok publication: publication "{slot}" does not exist yet and will be created`,
		`info primary_key: public.log has no primary key: its events have no key`,
		`ok replica_identity: updates and deletes carry the whole old row, and write more WAL (REPLICA IDENTITY FULL): public.log`,
		`info replica_identity: updates and deletes carry only the key of the old row: public.seats`,
		`info synchronous_commit: synchronous_commit is off: commits are read up to wal_writer_delay (200ms) late`,
	} {
		want = append(want, b.words.Replace(line))
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("Check, what is no warning (-want +got):\n%s", diff)
	}
}

func TestCheckReportsOptionFaultsAsAnError(t *testing.T) {
	got, err := cdc.Check(t.Context(), "postgres://app:hunter2@localhost/shop", &cdc.Options{Slot: "No", Tables: []string{"a.b.c"}})
	if got != nil || err == nil || !strings.Contains(err.Error(), `slot "No"`) || !strings.Contains(err.Error(), "a.b.c") {
		t.Errorf("Check(two faults) = %v, %v; want an error with both", got, err)
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := cdc.Check(ctx, pgtest.Database(t), nil)
	if got != nil || err == nil {
		t.Errorf("Check(ended context) = %v, %v; want only an error", got, err)
	}
}

func TestFindingJSON(t *testing.T) {
	got, err := json.Marshal([]cdc.Finding{
		{Check: "wal_level", Text: "wal_level is logical"},
		{Check: "slot", Level: cdc.Warning, Object: "s", Text: "t", Remedy: "r"},
	})
	want := `[{"check":"wal_level","level":"ok","text":"wal_level is logical"},` +
		`{"check":"slot","level":"warning","object":"s","text":"t","remedy":"r"}]`
	if string(got) != want || err != nil {
		t.Errorf("Marshal = %s, %v; want %s", got, err, want)
	}
}

func TestLevelString(t *testing.T) {
	for level, want := range map[cdc.Level]string{
		cdc.OK: "ok", cdc.Info: "info", cdc.Warning: "warning", cdc.Fatal: "fatal", 7: "level 7",
	} {
		if got := level.String(); got != want {
			t.Errorf("Level(%d).String() = %q, want %q", int(level), got, want)
		}
	}
}
