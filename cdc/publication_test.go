package cdc_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// published returns the names of what a publication sends; "=" marks what was
// added by name.
func published(t *testing.T, databaseURL, publication string) []string {
	t.Helper()
	p, err := cdc.PublicationTables(t.Context(), databaseURL, publication)
	if err != nil {
		t.Fatalf("PublicationTables(%q) = %v", publication, err)
	}
	names := []string{}
	for _, table := range p.Tables {
		name := table.Schema + "." + table.Name
		if table.Listed {
			name = "=" + name
		}
		names = append(names, name)
	}
	return names
}

func TestPublicationTables(t *testing.T) {
	b := newBench(t)
	b.exec(t, seats, `CREATE TABLE log (line text)`, `CREATE TABLE trips (id int PRIMARY KEY) PARTITION BY RANGE (id)`,
		`CREATE TABLE trips_1 PARTITION OF trips FOR VALUES FROM (0) TO (9)`,
		`CREATE PUBLICATION {slot} FOR TABLE seats, log, trips WITH (publish_via_partition_root, publish = 'insert, delete')`,
		`CREATE PUBLICATION every FOR ALL TABLES`)
	got, err := cdc.PublicationTables(t.Context(), b.as(t, b.role), "")
	if err != nil {
		t.Fatal(err)
	}
	want := &cdc.Publication{
		Name: b.words.Replace("{slot}"), Owner: b.words.Replace("{admin}"), ViaRoot: true, Sends: []string{"insert", "delete"},
		Tables: []cdc.PublishedTable{
			{Schema: "public", Name: "log", Listed: true},
			{Schema: "public", Name: "seats", Listed: true, Identified: true},
			{Schema: "public", Name: "trips", Listed: true, Partitioned: true, Identified: true},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("PublicationTables() (-want +got):\n%s", diff)
	}
	got, err = cdc.PublicationTables(t.Context(), b.url, "every")
	if err != nil || !got.AllTables || got.ViaRoot || len(got.Tables) != 3 || got.Tables[0].Listed {
		t.Errorf("PublicationTables(every) = %+v, %v; want all tables, none listed", got, err)
	}
	var none *cdc.SetupError
	if _, err = cdc.PublicationTables(t.Context(), b.url, "evry"); !errors.As(err, &none) || !strings.Contains(err.Error(), "did you mean every?") {
		t.Errorf("PublicationTables(evry) = %v, want a SetupError that offers every", err)
	}
	_, err = cdc.PublicationTables(t.Context(), b.url, "what")
	if want := "there is every, " + b.words.Replace("{slot}"); !errors.As(err, &none) || !strings.Contains(err.Error(), want) {
		t.Errorf("PublicationTables(what) = %v, want %q", err, want)
	}
}

const shop = `
	CREATE TABLE seats (id int PRIMARY KEY); CREATE TABLE trips (id int PRIMARY KEY); CREATE TABLE log (line text);
	CREATE VIEW cheap AS SELECT * FROM seats;
	CREATE SCHEMA sales; CREATE TABLE sales.a (id int PRIMARY KEY); CREATE TABLE sales."B" (id int PRIMARY KEY);
	CREATE TABLE days (id int PRIMARY KEY) PARTITION BY RANGE (id);
	CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (9)`

func TestAlterPublication(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		setup     string // after the shop; the publication is p
		add       []string
		remove    []string
		changed   []string
		unchanged []string
		findings  []string // beginnings
		after     []string
	}{
		"add by pattern": {
			setup: `CREATE PUBLICATION p FOR TABLE seats, sales.a WITH (publish_via_partition_root)`, add: []string{"seats", "sales.*", "public.trips"},
			changed: []string{"public.trips", "sales.B"}, unchanged: []string{"public.seats", "sales.a"},
			after: []string{"=public.seats", "=public.trips", "=sales.B", "=sales.a"},
		},
		"add to an empty one, as a quoted name": {
			setup: `CREATE PUBLICATION p`, add: []string{`sales."B"`}, changed: []string{"sales.B"}, after: []string{"=sales.B"},
		},
		"nothing to add": {
			setup: `CREATE PUBLICATION p FOR TABLE seats`, add: []string{"seats"}, unchanged: []string{"public.seats"}, after: []string{"=public.seats"},
		},
		"add a root": {
			setup: `CREATE PUBLICATION p WITH (publish_via_partition_root)`, add: []string{"days"},
			changed: []string{"public.days"}, after: []string{"=public.days"},
		},
		"add a schema with a root and its partition": {
			setup: `DROP TABLE seats, trips, log CASCADE; CREATE PUBLICATION p WITH (publish_via_partition_root)`, add: []string{"public.*"},
			changed: []string{"public.days"}, after: []string{"=public.days"},
		},
		"add a partition of a root that is in": {
			setup: `CREATE PUBLICATION p FOR TABLE days WITH (publish_via_partition_root)`, add: []string{"days_1"},
			unchanged: []string{"public.days_1"}, after: []string{"=public.days"},
		},
		"add a root where partitions have their own names": {
			setup: `CREATE PUBLICATION p`, add: []string{"days"}, changed: []string{"public.days"},
			findings: []string{`publication "p" sends the changes of partitioned tables under the names of their partitions: public.days`},
			after:    []string{"public.days_1"},
		},
		"add a table whose updates will fail": {
			setup: `CREATE PUBLICATION p`, add: []string{"log"}, changed: []string{"public.log"},
			findings: []string{"public.log has no primary key: its inserts arrive without a key, and UPDATE and DELETE on it fail"},
			after:    []string{"=public.log"},
		},
		"add a parent alone": {
			setup: `CREATE TABLE heir () INHERITS (seats); CREATE PUBLICATION p FOR TABLE heir`, add: []string{"seats"},
			changed: []string{"public.seats"}, after: []string{"=public.heir", "=public.seats"},
		},
		"remove by pattern": {
			setup: `CREATE PUBLICATION p FOR TABLE seats, log, sales.a, sales."B"`, remove: []string{"sales.*", "log", "log"},
			changed: []string{"public.log", "sales.B", "sales.a"}, after: []string{"=public.seats"},
		},
		"remove a parent alone": {
			setup: `CREATE TABLE heir () INHERITS (seats); CREATE PUBLICATION p FOR TABLE ONLY seats`, remove: []string{"seats"},
			changed: []string{"public.seats"}, after: []string{},
		},
		"remove a root": {
			setup: `CREATE PUBLICATION p FOR TABLE days, log WITH (publish_via_partition_root)`, remove: []string{"days"},
			changed: []string{"public.days"}, after: []string{"=public.log"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := pgtest.Database(t)
			pgtest.Exec(t, u, shop, tc.setup)
			alter, tables := cdc.AddTables, tc.add
			if tc.remove != nil {
				alter, tables = cdc.RemoveTables, tc.remove
			}
			got, err := alter(t.Context(), u, "p", tables)
			if err != nil {
				t.Fatalf("alter(%q) = %v", tables, err)
			}
			if !slices.Equal(got.Changed, tc.changed) || !slices.Equal(got.Unchanged, tc.unchanged) || len(got.Findings) != len(tc.findings) {
				t.Errorf("alter(%q) = %+v; want changed %q, unchanged %q, findings %q", tables, got, tc.changed, tc.unchanged, tc.findings)
			}
			for i, want := range tc.findings {
				if i < len(got.Findings) && !strings.HasPrefix(got.Findings[i].Text, want) {
					t.Errorf("alter(%q) found %q, want %q…", tables, got.Findings[i].Text, want)
				}
			}
			if diff := cmp.Diff(tc.after, published(t, u, "p")); diff != "" {
				t.Errorf("after alter(%q) the publication has (-want +got):\n%s", tables, diff)
			}
		})
	}
}

func TestAlterPublicationRefusals(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.exec(t, shop, `CREATE PUBLICATION p FOR TABLE seats, days WITH (publish_via_partition_root)`, `CREATE PUBLICATION every FOR ALL TABLES`,
		`CREATE PUBLICATION mine FOR TABLE trips; ALTER PUBLICATION mine OWNER TO {role}`)
	limited := b.as(t, b.role)
	for name, tc := range map[string]struct {
		url         string
		publication string
		add, remove []string
		want        []string
	}{
		"unknown tables, and one that is known": {
			add: []string{"trip", "trips", "sale.*"},
			want: []string{
				"no table matches public.trip; did you mean public.trips?", "no table matches sale.*; did you mean sales.*?",
			},
		},
		"a view":                {add: []string{"cheap", "trips"}, want: []string{"public.cheap is a view, and Postgres cannot publish it"}},
		"a pattern":             {add: []string{"a.b.c"}, want: []string{`table "a.b.c": more than two parts`}},
		"no table":              {add: []string{}, want: []string{"no table was given"}},
		"unknown publication":   {publication: "evry", add: []string{"trips"}, want: []string{`publication "evry" does not exist in database`, "did you mean every?"}},
		"add to all tables":     {publication: "every", add: []string{"trips"}, want: []string{`publication "every" is for all tables, and tables cannot be added to it; nothing is to be done`}},
		"remove of all tables":  {publication: "every", remove: []string{"trips"}, want: []string{`publication "every" is for all tables, and tables cannot be removed from it; create another`}},
		"remove what is not in": {remove: []string{"seat", "seats"}, want: []string{`no table of publication "p" matches public.seat; did you mean public.seats?`}},
		"remove far from any":   {remove: []string{"sales.*"}, want: []string{`no table of publication "p" matches sales.*; it has public.days, public.seats`}},
		"remove a partition":    {remove: []string{"days_1"}, want: []string{`public.days_1 is in publication "p" as a partition of public.days, and cannot be removed alone; remove public.days`}},
		"add as a stranger": {
			url: limited, add: []string{"trips"},
			want: []string{b.words.Replace(`role "{role}" does not own publication "p", which belongs to "{admin}", nor public.trips; ` +
				`as the owner of all of them, or as a superuser: ALTER PUBLICATION "p" ADD TABLE ONLY "public"."trips"`)},
		},
		"add others' tables": {
			url: limited, publication: "mine", add: []string{"seats"},
			want: []string{b.words.Replace(`role "{role}" does not own public.seats; as the owner of all of them`)},
		},
		"remove as a stranger": {
			url: limited, remove: []string{"seats"},
			want: []string{b.words.Replace(`role "{role}" does not own publication "p", which belongs to "{admin}"; as its owner, or as a superuser: ALTER PUBLICATION "p" DROP TABLE ONLY "public"."seats"`)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.state(t)
			url, publication := tc.url, tc.publication
			if url == "" {
				url = b.url
			}
			if publication == "" {
				publication = "p"
			}
			alter, tables := cdc.AddTables, tc.add
			if tc.remove != nil {
				alter, tables = cdc.RemoveTables, tc.remove
			}
			got, err := alter(t.Context(), url, publication, tables)
			if got != nil || err == nil {
				t.Fatalf("alter(%s, %q) = %+v, %v; want an error alone", publication, tables, got, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("alter(%s, %q) = %v; want %q", publication, tables, err, want)
				}
			}
			if diff := cmp.Diff(before, b.state(t)); diff != "" {
				t.Errorf("alter(%s, %q) failed and changed (-before +after):\n%s", publication, tables, diff)
			}
		})
	}

	// To remove, the publication is enough.
	if _, err := cdc.RemoveTables(t.Context(), limited, "mine", []string{"trips"}); err != nil {
		t.Errorf("RemoveTables(mine) as its owner = %v", err)
	}
}

func TestAlterPublicationOfSchemas(t *testing.T) {
	u := pgtest.Database(t)
	if serverVersion(t, u) < 150000 {
		t.Skip("publications of schemas came with Postgres 15")
	}
	pgtest.Exec(t, u, shop, `CREATE PUBLICATION p FOR TABLES IN SCHEMA sales, TABLE seats`)
	p, err := cdc.PublicationTables(t.Context(), u, "p")
	if err != nil || !slices.Equal(p.Schemas, []string{"sales"}) {
		t.Errorf("PublicationTables(p).Schemas = %+v, %v; want sales", p, err)
	}
	if diff := cmp.Diff([]string{"=public.seats", "sales.B", "sales.a"}, published(t, u, "p")); diff != "" {
		t.Errorf("PublicationTables(p).Tables (-want +got):\n%s", diff)
	}
	got, err := cdc.AddTables(t.Context(), u, "p", []string{"sales.a"})
	if err != nil || !slices.Equal(got.Unchanged, []string{"sales.a"}) || len(got.Changed) > 0 {
		t.Errorf("AddTables(sales.a) = %+v, %v; want it unchanged", got, err)
	}
	want := `publication "p" has all tables of schema sales, and sales.a cannot be removed alone; ALTER PUBLICATION "p" DROP TABLES IN SCHEMA "sales"`
	if _, err := cdc.RemoveTables(t.Context(), u, "p", []string{"sales.a"}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("RemoveTables(sales.a) = %v; want %q", err, want)
	}
}

// TestAddedTableSendsOnlyChanges is what AddTables promises to a reader that
// runs.
func TestAddedTableSendsOnlyChanges(t *testing.T) {
	u := pgtest.Database(t)
	conn := pgtest.Connect(t, u)
	exec(t, conn, `CREATE TABLE seats (id int PRIMARY KEY)`, `CREATE TABLE trips (id int PRIMARY KEY)`, `INSERT INTO trips VALUES (1)`,
		`CREATE PUBLICATION p FOR TABLE seats`)
	var rec listenertest.Recorder
	src := run(t, u, &cdc.Options{Publication: "p"}, record(t, &rec, nil))
	src.caughtUp()
	if _, err := cdc.AddTables(t.Context(), u, "p", []string{"trips"}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `INSERT INTO trips VALUES (2)`)
	src.caughtUp()
	if _, err := cdc.RemoveTables(t.Context(), u, "p", []string{"trips"}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `INSERT INTO trips VALUES (3)`)
	src.caughtUp()
	if diff := cmp.Diff([]string{"2"}, keys(&rec)); diff != "" {
		t.Errorf("keys of the changes (-want +got):\n%s", diff)
	}
}
