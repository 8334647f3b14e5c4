package cdc

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// healthy is an inventory without a warning, for tests to spoil.
func healthy() *inventory {
	return &inventory{
		version: 150018, database: "shop", user: "app", replication: true, createDB: true,
		walLevel: "logical", synchronousCommit: "on", walWriterDelay: "200ms", maxWALKeep: "-1",
		maxSlots: 10, maxSenders: 10,
		tables: []tableInfo{{
			oid: 1, schema: "public", name: "seats", kind: 'r', identity: 'd', identified: true, primaryKey: []string{"id"},
			owned: true, readable: true, published: true,
		}},
		publication: &publicationInfo{inserts: true, updates: true, deletes: true, truncates: true, viaRoot: true},
		slot:        &slotInfo{plugin: "pgoutput", database: "shop", walStatus: "reserved"},
	}
}

// TestFindings spoils one thing and expects one finding, where a server would
// be hard to bring into that state.
func TestFindings(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*inventory)
		opts  Options
		want  *Finding // nil for no warning
	}{
		"healthy": {spoil: func(*inventory) {}},
		"Postgres 13": {
			spoil: func(inv *inventory) { *inv = inventory{version: 130014} },
			want: &Finding{
				Check: "server_version", Level: Fatal, Text: "the server is Postgres 13.14; 14 is the oldest that is supported",
				Remedy: "upgrade the server",
			},
		},
		"Postgres 9.6": {
			spoil: func(inv *inventory) { *inv = inventory{version: 90624} },
			want: &Finding{
				Check: "server_version", Level: Fatal, Text: "the server is Postgres 9.6; 14 is the oldest that is supported",
				Remedy: "upgrade the server",
			},
		},
		"another plugin": {
			spoil: func(inv *inventory) { inv.slot.plugin = "wal2json" },
			want: &Finding{
				Check: "slot", Level: Fatal, Object: "s", Text: `slot "s" uses the output plugin "wal2json", not pgoutput`,
				Remedy: "choose another slot name",
			},
		},
		"two-phase on a server that is too old": {
			spoil: func(inv *inventory) { inv.version = 140012 },
			opts:  Options{TwoPhase: true},
			want: &Finding{
				Check: "two_phase", Level: Fatal, Text: "the server is Postgres 14.12, which does not send prepared transactions",
				Remedy: "do without two-phase (they arrive whole when they commit), or upgrade to 15",
			},
		},
		"temporary slot": {
			spoil: func(inv *inventory) { inv.slot.temporary = true },
			want: &Finding{
				Check: "slot", Level: Fatal, Object: "s", Text: `slot "s" is a temporary one of another session`,
				Remedy: "choose another slot name",
			},
		},
		"invalidated slot with a reason": {
			spoil: func(inv *inventory) {
				inv.slot.walStatus, inv.slot.reason, inv.slot.confirmed = "lost", "idle_timeout", 0x16_B374D848
			},
			want: &Finding{
				Check: "slot", Level: Fatal, Object: "s", Text: `slot "s" is lost: the server has invalidated it (idle_timeout)`,
				Remedy: "SELECT pg_drop_replication_slot('s') and start again: a new snapshot is taken;" +
					" changes since 16/B374D848 are in it as they stand, one by one they are gone",
			},
		},
		"lost slot without a snapshot mode": {
			spoil: func(inv *inventory) { inv.slot.walStatus = "lost" },
			opts:  Options{Snapshot: SnapshotNever},
			want: &Finding{
				Check: "slot", Level: Fatal, Object: "s", Text: `slot "s" is lost: the server has removed WAL that had not been read`,
				Remedy: "SELECT pg_drop_replication_slot('s') and start again: changes since 0/0 are gone," +
					" since no snapshot is taken",
			},
		},
		"a bad slot is nothing to a snapshot alone": {
			spoil: func(inv *inventory) { inv.slot.plugin, inv.slot.walStatus, inv.slot.active = "wal2json", "lost", true },
			opts:  Options{Snapshot: SnapshotOnly},
		},
		"two slots for a snapshot": {
			spoil: func(inv *inventory) { inv.slot, inv.usedSlots = nil, 9 },
			want: &Finding{
				Check: "slots", Level: Fatal, Text: "9 of 10 max_replication_slots are in use, and the run needs 2 more",
				Remedy: "set max_replication_slots to at least 11 and restart the server, or drop one that nobody reads:" +
					" SELECT slot_name, active, wal_status FROM pg_replication_slots",
			},
		},
		"two slots without a snapshot": {
			spoil: func(inv *inventory) { inv.slot, inv.usedSlots = nil, 9 },
			opts:  Options{Snapshot: SnapshotNever},
			want: &Finding{
				Check: "slots", Level: Fatal, Text: "9 of 10 max_replication_slots are in use, and the run needs 2 more",
				Remedy: "set max_replication_slots to at least 11 and restart the server, or drop one that nobody reads:" +
					" SELECT slot_name, active, wal_status FROM pg_replication_slots",
			},
		},
		"none for a slot that is there": {
			spoil: func(inv *inventory) { inv.usedSlots = 10 },
		},
		"a slot for a snapshot alone": {
			spoil: func(inv *inventory) { inv.usedSlots = 10 },
			opts:  Options{Snapshot: SnapshotOnly},
			want: &Finding{
				Check: "slots", Level: Fatal, Text: "10 of 10 max_replication_slots are in use, and the run needs 1 more",
				Remedy: "set max_replication_slots to at least 11 and restart the server, or drop one that nobody reads:" +
					" SELECT slot_name, active, wal_status FROM pg_replication_slots",
			},
		},
		"no sender left": {
			spoil: func(inv *inventory) { inv.usedSenders = 10 },
			want: &Finding{
				Check: "senders", Level: Fatal, Text: "10 of 10 max_wal_senders are in use, and the run needs 1 more",
				Remedy: "set max_wal_senders to at least 11 and restart the server, or end a replication connection:" +
					" SELECT pid, application_name, client_addr FROM pg_stat_replication",
			},
		},
		"the predecessor's sender": {
			spoil: func(inv *inventory) { inv.usedSenders, inv.slot.active = 10, true },
		},
		"no REPLICATION on RDS": {
			spoil: func(inv *inventory) { inv.replication, inv.provider = false, "rdsadmin" },
			want: &Finding{
				Check: "replication_privilege", Level: Fatal, Object: "app",
				Text: `role "app" lacks the REPLICATION privilege`, Remedy: `GRANT rds_replication TO "app"`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inv := healthy()
			tc.spoil(inv)
			opts := tc.opts
			opts.Slot = "s"
			c, err := newConfig("postgres://app@localhost/shop", &opts)
			if err != nil {
				t.Fatal(err)
			}
			var got []Finding
			for _, f := range inv.findings(c) {
				if (f.Level == OK) != (f.Remedy == "") {
					t.Errorf("findings has %+v; want a remedy unless it is ok", f)
				}
				if f.Level >= Warning {
					got = append(got, f)
				}
			}
			var want []Finding
			if tc.want != nil {
				want = append(want, *tc.want)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings(%s), warnings and worse (-want +got):\n%s", name, diff)
			}
		})
	}
}

func TestSlotInUse(t *testing.T) {
	c := &config{Options: Options{Slot: "s", Snapshot: SnapshotInitial}}
	inv := healthy()
	if got := slotInUse(inv, c); got != nil {
		t.Errorf("slotInUse(idle slot) = %v, want nil", got)
	}
	inv.slot.active, inv.slot.activePID = true, 123
	if got := slotInUse(inv, c); got == nil || got.Level != Fatal || got.Text != `slot "s" is in use by PID 123` {
		t.Errorf("slotInUse(slot held by a session that shows nothing) = %v, want its PID", got)
	}
	inv.slot.activeBy = "psql, 10.0.0.7"
	if got := slotInUse(inv, c); got == nil || got.Text != `slot "s" is in use by PID 123 (psql, 10.0.0.7)` {
		t.Errorf("slotInUse(slot held by psql) = %v, want its PID, name and address", got)
	}
	c.Snapshot = SnapshotOnly
	if got := slotInUse(inv, c); got != nil {
		t.Errorf("slotInUse(a snapshot alone) = %v, want nil", got)
	}
	c.Snapshot, inv.slot = SnapshotInitial, nil
	if got := slotInUse(inv, c); got != nil {
		t.Errorf("slotInUse(no slot) = %v, want nil", got)
	}
}

func TestSimilar(t *testing.T) {
	tables := []pattern{
		{schema: "public", table: "seats"},
		{schema: "public", table: "trains"},
		{schema: "shop", table: "orders"},
		{schema: "shop", table: "order_items"},
	}
	for name, tc := range map[string]struct {
		in   pattern
		want []string
	}{
		"a letter":         {pattern{schema: "public", table: "seat"}, []string{"public.seats"}},
		"case":             {pattern{schema: "public", table: "Seats"}, []string{"public.seats"}},
		"another schema":   {pattern{schema: "public", table: "orders"}, []string{"shop.orders"}},
		"a schema":         {pattern{schema: "shops", all: true}, []string{"shop.*"}},
		"nothing like it":  {pattern{schema: "public", table: "invoices"}, nil},
		"no schema either": {pattern{schema: "warehouse", all: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := similar(tc.in, tables); !slices.Equal(got, tc.want) {
				t.Errorf("similar(%s) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestEditDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"Seats", "sEATS", 0}, {"ab", "ba", 2}} {
		if got := editDistance(tc.a, tc.b); got != tc.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

// TestInventory compares what the catalogs say, as an unprivileged role sees
// them, with what IDENTIFY_SYSTEM and the statements of the test say.
func TestInventory(t *testing.T) {
	databaseURL := pgtest.Database(t)
	pgtest.Exec(t, databaseURL, `
		CREATE SCHEMA shop;
		CREATE TABLE shop.orders (no int, line int, item text, PRIMARY KEY (line, no) INCLUDE (item));
		INSERT INTO shop.orders SELECT 1, g, 'x' FROM generate_series(1, 100) g;
		CREATE TABLE shop.events (day date, id int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
		CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2030-01-01') TO ('2030-02-01') PARTITION BY RANGE (id);
		CREATE TABLE shop.events_1_a PARTITION OF shop.events_1 FOR VALUES FROM (0) TO (10);
		CREATE TABLE shop.events_2 PARTITION OF shop.events FOR VALUES FROM ('2030-02-01') TO ('2030-03-01');
		INSERT INTO shop.events VALUES ('2030-01-01', 1), ('2030-02-01', 1);
		CREATE VIEW shop.v AS TABLE shop.orders;
		CREATE UNLOGGED TABLE shop.cache (id int);
		CREATE TABLE other (id int);
		ANALYZE shop.orders; ANALYZE shop.events_1_a; ANALYZE shop.events_2`)
	conn := pgtest.Connect(t, databaseURL)
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("Exec(%q) = %v", sql, err)
		}
	}
	take := func(tables ...string) *inventory {
		t.Helper()
		c, err := newConfig(databaseURL, &Options{Tables: tables})
		if err != nil {
			t.Fatal(err)
		}
		inv, err := takeInventory(t.Context(), conn, c)
		if err != nil {
			t.Fatalf("takeInventory(%q) = %v", tables, err)
		}
		return inv
	}
	names := func(tables []tableInfo) string {
		var s []string
		for i := range tables {
			s = append(s, tables[i].String())
		}
		return strings.Join(s, " ")
	}

	inv := take("shop.*")
	c, err := newConfig(databaseURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	repl, id, err := c.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer repl.Close(t.Context())
	system, err := pglogrepl.IdentifySystem(t.Context(), repl)
	if err != nil {
		t.Fatal(err)
	}
	timeline := uint32(system.Timeline)
	if inv.systemID != id || id == 0 || inv.timeline != timeline {
		t.Errorf("takeInventory has system %d, timeline %d; want %d, %d as IDENTIFY_SYSTEM says", inv.systemID, inv.timeline, id, timeline)
	}
	if !inv.superuser || !inv.createDB || inv.recovery || inv.walLevel != "logical" || inv.maxSlots == 0 || inv.maxSenders == 0 {
		t.Errorf("takeInventory as a superuser = %+v", inv)
	}
	if got, want := names(inv.tables), "shop.events shop.orders"; got != want {
		t.Errorf("takeInventory(shop.*) has tables %q, want %q", got, want)
	}
	if got, want := names(inv.skipped), "shop.cache"; got != want {
		t.Errorf("takeInventory(shop.*) skips %q, want %q", got, want)
	}
	events, orders := inv.tables[0], inv.tables[1]
	if diff := cmp.Diff([]string{"line", "no"}, orders.primaryKey); diff != "" {
		t.Errorf("primary key of shop.orders, in the order of the index without included columns (-want +got):\n%s", diff)
	}
	if orders.rows != 100 || events.rows != 2 || len(events.parts) != 2 || !events.partitioned || !events.identified {
		t.Errorf("takeInventory(shop.*) has %+v and %+v; want 100 rows, and 2 of two leaves", orders, events)
	}

	if got, want := names(take().tables), "public.other shop.events shop.orders"; got != want {
		t.Errorf("takeInventory() has tables %q, want %q", got, want)
	}
	if got, want := names(take("shop.events_1", "shop.events_1_a").tables), "shop.events_1"; got != want {
		t.Errorf("takeInventory(a partition and its own) has tables %q, want %q", got, want)
	}

	// With a publication and no patterns, what it lists counts.
	publication := quote(c.Publication)
	for _, tc := range []struct {
		sql, patterns, tables, published string
	}{
		{"FOR TABLE shop.events, other", "", "public.other shop.events_1_a shop.events_2", "public.other shop.events_1_a shop.events_2"},
		{"FOR TABLE shop.events, other WITH (publish_via_partition_root = true)", "", "public.other shop.events", "public.other shop.events"},
		{"FOR ALL TABLES WITH (publish_via_partition_root = true)", "", "public.other shop.events shop.orders", "public.other shop.events shop.orders"},
		{"FOR TABLE shop.events", "shop.*", "shop.events_1_a shop.events_2 shop.orders", "shop.events_1_a shop.events_2"},
		{"FOR TABLE shop.events", "shop.events", "shop.events", "shop.events"},
		{"FOR TABLE shop.events_2", "shop.events", "shop.events", ""},
		{"FOR TABLE shop.events_2 WITH (publish_via_partition_root = true)", "shop.events_2", "shop.events_2", "shop.events_2"},
		{"FOR TABLE shop.events_1 WITH (publish_via_partition_root = true)", "shop.*", "shop.events shop.orders", ""},
	} {
		exec("CREATE PUBLICATION " + publication + " " + tc.sql)
		inv := take(strings.Fields(tc.patterns)...)
		published := slices.DeleteFunc(slices.Clone(inv.tables), func(t tableInfo) bool { return !t.published })
		if names(inv.tables) != tc.tables || names(published) != tc.published {
			t.Errorf("takeInventory(%q) with a publication %s has tables %q, published %q; want %q, published %q",
				tc.patterns, tc.sql, names(inv.tables), names(published), tc.tables, tc.published)
		}
		exec("DROP PUBLICATION " + publication)
	}

	// An unprivileged role, inside a transaction.
	exec(`BEGIN READ ONLY; SET LOCAL SESSION AUTHORIZATION pg_database_owner`)
	inv = take("shop.*")
	if inv.systemID != id || inv.timeline != timeline || inv.superuser || inv.replication {
		t.Errorf("takeInventory as an unprivileged role = %+v", inv)
	}
	if got := inv.tables[1]; got.readable || got.owned || got.rows != 100 {
		t.Errorf("takeInventory as an unprivileged role has %+v; want not readable, not owned", got)
	}
	exec("ROLLBACK")
}
