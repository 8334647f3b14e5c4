package cdc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A userType is a column's type, what it needs, and values of it.
type userType struct {
	setup     []string
	typ       string
	values    []string
	generated string // a second column, which is not replicated
}

var userTypes = map[string]userType{
	"enum": {
		setup: []string{`CREATE TYPE mood AS ENUM ('sad', 'very happy', '"q"', 'true', '1', '', 'NULL')`},
		typ:   "mood", values: []string{`'sad'`, `'very happy'`, `'"q"'`, `'true'`, `'1'`, `''`},
	},
	"array of an enum": {
		setup: []string{`CREATE TYPE mood AS ENUM ('sad', 'very happy', '"q"', '1', '', 'NULL')`},
		typ:   "mood[]", values: []string{`'{}'`, `ARRAY['sad', 'very happy', '"q"', '1', '', 'NULL', NULL]::mood[]`, `'{{sad,sad},{NULL,sad}}'`, `'[5:5]={sad}'`},
	},
	"domain over integer":     {setup: []string{`CREATE DOMAIN positive AS int CHECK (VALUE > 0)`}, typ: "positive", values: []string{"1", "2147483647"}},
	"domain over numeric":     {setup: []string{`CREATE DOMAIN price AS numeric(30, 4)`}, typ: "price", values: []string{"12345678901234567890.1200", "'NaN'"}},
	"domain over text":        {setup: []string{`CREATE DOMAIN words AS text`}, typ: "words", values: []string{`'12'`, `'{1}'`, `''`}},
	"domain over boolean":     {setup: []string{`CREATE DOMAIN yes AS bool`}, typ: "yes", values: []string{"true", "false"}},
	"domain over jsonb":       {setup: []string{`CREATE DOMAIN doc AS jsonb`}, typ: "doc", values: []string{`'{"a": [1.10, "x"]}'`, `'null'`}},
	"domain over bytea":       {setup: []string{`CREATE DOMAIN raw AS bytea`}, typ: "raw", values: []string{`'\x00ff'`}},
	"domain over timestamptz": {setup: []string{`CREATE DOMAIN at AS timestamptz`}, typ: "at", values: []string{`'2024-02-29 12:34:56+05:30'`, `'infinity'`}},
	"domain over an array":    {setup: []string{`CREATE DOMAIN ids AS int[]`}, typ: "ids", values: []string{`'{1,NULL}'`, `'{{1},{2}}'`}},
	"domain over a domain": {
		setup: []string{`CREATE DOMAIN a AS int`, `CREATE DOMAIN b AS a CHECK (VALUE > 0)`, `CREATE DOMAIN c AS b`},
		typ:   "c", values: []string{"7"},
	},
	"array of a domain":                {setup: []string{`CREATE DOMAIN price AS numeric`}, typ: "price[]", values: []string{`'{1.10,NULL,NaN}'`}},
	"array of a domain over an array":  {setup: []string{`CREATE DOMAIN ids AS int[]`}, typ: "ids[]", values: []string{`'{"{1,2}",NULL,"{}"}'`, `'{{"{{1}}"}}'`}},
	"array of a domain over boxes":     {setup: []string{`CREATE DOMAIN area AS box`}, typ: "area[]", values: []string{`ARRAY['(1,1),(0,0)'::area, '(2,2),(1,1)']`}},
	"domain over an array of an enum":  {setup: []string{`CREATE TYPE mood AS ENUM ('sad')`, `CREATE DOMAIN moods AS mood[]`}, typ: "moods", values: []string{`'{sad,NULL}'`}},
	"composite":                        {setup: []string{address}, typ: "address", values: addresses},
	"array of a composite":             {setup: []string{address}, typ: "address[]", values: []string{"ARRAY[" + strings.Join(addresses, ", ") + ", NULL]::address[]", "'{}'", "ARRAY[ARRAY[" + addresses[0] + "], ARRAY[" + addresses[1] + "]]::address[]"}},
	"domain over a composite":          {setup: []string{address, `CREATE DOMAIN home AS address CHECK ((VALUE).n < 2 OR (VALUE).n IS NULL)`}, typ: "home", values: addresses},
	"array of domains over composites": {setup: []string{address, `CREATE DOMAIN home AS address`}, typ: "home[]", values: []string{"ARRAY[" + addresses[0] + ", NULL]::home[]"}},
	"nested composites": {
		setup: []string{
			address, `CREATE TYPE mood AS ENUM ('"sad"')`, `CREATE DOMAIN price AS numeric`,
			`CREATE TYPE person AS (home address, work address[], mood mood, prices price[], doc json, docs jsonb[], born timestamp, raw bytea, ok bool, r int4range)`,
			`CREATE TYPE couple AS ("the ""first""" person, others person[])`,
		},
		typ: "couple", values: []string{
			`ROW(ROW(` + addresses[0] + `, ARRAY[` + strings.Join(addresses, ", ") + `, NULL]::address[], '"sad"', '{1.10,NULL}',
				'{"a":  "\\\"(,)"}', ARRAY['{"b": "\"(,)"}', NULL, 'null']::jsonb[], '2024-01-02 03:04:05.6', '\x00', false, '[1,3)')::person,
				ARRAY[ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::person, NULL])::couple`,
			`ROW(NULL, '{}')::couple`, `ROW(NULL, NULL)::couple`,
		},
	},
	"composite of one field": {setup: []string{`CREATE TYPE one AS (t text)`}, typ: "one", values: []string{`ROW(NULL)::one`, `ROW('')::one`, `ROW(',')::one`, `ROW('()')::one`}},
	"composite of no field":  {setup: []string{`CREATE TYPE nothing AS ()`}, typ: "nothing", values: []string{`'()'`}},
	"composite with a dropped field": {
		setup: []string{`CREATE TYPE rest AS (a int, b int, c text)`, `ALTER TYPE rest DROP ATTRIBUTE b`},
		typ:   "rest", values: []string{`ROW(1, 'x')::rest`},
	},
	"rows of another table": {setup: []string{`CREATE TABLE other (id int, "no" text)`}, typ: "other", values: []string{`ROW(1, 'a b')::other`}},
	"rows of a catalog":     {typ: "pg_namespace", values: []string{`(SELECT n FROM pg_namespace n WHERE nspname = 'pg_catalog')`}},
	"domain of a catalog":   {typ: "information_schema.cardinal_number", values: []string{"5"}},
	"range":                 {typ: "tstzrange", values: []string{`'["2024-01-01 10:00:00+02",)'`, "'empty'"}},
	"array of ranges":       {typ: "int4range[]", values: []string{`'{"[1,5)",empty,NULL}'`}},
	"multirange":            {typ: "int4multirange", values: []string{"'{[1,2),[5,6)}'", "'{}'"}},
	"range of one's own":    {setup: []string{`CREATE TYPE floats AS RANGE (subtype = float8)`}, typ: "floats", values: []string{"'[1.5,2.5)'", "'empty'"}},
	"array of own ranges":   {setup: []string{`CREATE TYPE floats AS RANGE (subtype = float8)`}, typ: "floats[]", values: []string{`'{"[1.5,2.5)",NULL}'`}},
	"multirange of own":     {setup: []string{`CREATE TYPE floats AS RANGE (subtype = float8)`}, typ: "floats_multirange", values: []string{`'{[1.5,2.5),[3,4)}'`}},
	"range of a composite":  {setup: []string{`CREATE TYPE pair AS (a int, b text)`, `CREATE TYPE pairs AS RANGE (subtype = pair)`}, typ: "pairs", values: []string{`pairs(ROW(1, 'x y')::pair, ROW(2, '"')::pair)`}},
	"money":                 {typ: "money", values: []string{"12345.67", "-1"}},
	"bit":                   {typ: "bit(3)", values: []string{"'101'"}},
	"xml":                   {typ: "xml", values: []string{`'<a b="c">&amp;</a>'`}},
	"tsvector":              {typ: "tsvector", values: []string{`'a:1 fat:2 "cat"'`}},
	"point":                 {typ: "point", values: []string{"'(1,2)'"}},
	"polygon":               {typ: "polygon", values: []string{"'((1,1),(2,2))'"}},
	"circles":               {typ: "circle[]", values: []string{`'{"<(1,1),2>",NULL}'`}},
	"generated column":      {typ: "int", values: []string{"1", "2"}, generated: "int GENERATED ALWAYS AS (v * 2) STORED"},
	"hstore":                {setup: []string{extension + inOther}, typ: "hstore", values: hstores},
	"array of hstore":       {setup: []string{extension + inOther}, typ: "hstore[]", values: []string{"ARRAY[" + strings.Join(hstores, ", ") + ", NULL]::hstore[]"}},
	"composite with hstore": {setup: []string{extension + inOther, `CREATE TYPE tagged AS (id int, tags hstore)`}, typ: "tagged", values: []string{"ROW(1, " + hstores[0] + ")::tagged"}},
	"domain over hstore":    {setup: []string{extension + inOther, `CREATE DOMAIN tags AS hstore`}, typ: "tags", values: hstores},
	"citext":                {setup: []string{extension + "citext SCHEMA public"}, typ: "citext", values: []string{"'Ab\"C'", "''", "'12'"}},
	"array of citext":       {setup: []string{extension + "citext SCHEMA public"}, typ: "citext[]", values: []string{"'{Ab,NULL,\"a b\"}'"}},
	"ltree":                 {setup: []string{extension + "ltree SCHEMA public"}, typ: "ltree", values: []string{"'Top.Science'", "''"}},
	"cube":                  {setup: []string{extension + "cube SCHEMA public"}, typ: "cube", values: []string{"'(1,2),(3,4)'"}},
	"isbn":                  {setup: []string{extension + "isn SCHEMA public"}, typ: "isbn", values: []string{"'978-0-393-04002-9'"}},
}

const (
	extension = `CREATE EXTENSION IF NOT EXISTS `
	inOther   = `hstore SCHEMA "my ext"`
	address   = `CREATE TYPE address AS (street text, "the no" int, n numeric, ok bool, tags text[], "q""uote" date)`
)

var (
	addresses = []string{
		`ROW('Main St', 5, 1.10, true, '{a,"b c",NULL,"q\"x\\"}', '2024-02-29')::address`,
		`ROW('"quoted", (with) \ and ''', NULL, 0, false, '{}', NULL)::address`,
		`ROW('', 0, -0.5, NULL, ARRAY['', '(', ')', ',', '"', '\'], 'infinity')::address`,
		`ROW(NULL, NULL, NULL, NULL, NULL, NULL)::address`,
		`ROW(E'tab\tline\n ', 1, 1.999, true, NULL, '0044-03-15 BC')::address`,
	}
	hstores = []string{`'a=>1, "b c"=>NULL, "q\"\\"=>"x\"y\\z, =>", ""=>"", t=>t'::hstore`, `''::hstore`}
)

func TestRecordJSONOfUserTypesEqualsToJsonb(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	exec(t, conn, `CREATE SCHEMA "my ext"`)
	skipped := make(map[string]error)
	for name, tc := range userTypes {
		schema := `"` + name + `"`
		exec(t, conn, "CREATE SCHEMA "+schema, "SET search_path = "+schema+`, public, "my ext"`)
		skipped[name] = fill(t, conn, tc)
	}
	var rec listenertest.Recorder
	src := run(t, conn.Config().ConnString(), nil, record(t, &rec, nil))
	src.caughtUp()
	for name := range userTypes {
		if skipped[name] == nil {
			table := `"` + name + `".things`
			exec(t, conn, "INSERT INTO "+table+" (v) SELECT v FROM "+table)
			if userTypes[name].generated == "" { // version 18 wants a full identity to be published in full
				exec(t, conn, "ALTER TABLE "+table+" REPLICA IDENTITY FULL")
			}
			exec(t, conn, "UPDATE "+table+" SET v = v")
		}
	}
	src.caughtUp()
	events := make(map[string][]listenertest.Event)
	for _, e := range rec.Events() {
		name := strings.TrimSuffix(e.Collection, ".things")
		events[name] = append(events[name], e)
	}
	for name, tc := range userTypes {
		t.Run(name, func(t *testing.T) {
			if err := skipped[name]; err != nil {
				t.Skip(err)
			}
			exec(t, conn, `SET search_path = "`+name+`", public`)
			// Each value and NULL: read, inserted again, and both updated.
			if got, want := len(events[name]), 4*(len(tc.values)+1); got != want {
				t.Fatalf("got %d events, want %d: %v", got, want, lines(events[name]))
			}
			for _, e := range events[name] {
				sameJSON(t, conn, fmt.Sprint(e.Op, " after"), e.After, e.Key)
				if e.Op == listeners.Update && tc.generated == "" {
					sameJSON(t, conn, "update before", e.Before, e.Key)
				}
			}
		})
	}
}

// fill creates a table with the values, and returns why the server cannot.
func fill(t *testing.T, conn *pgx.Conn, tc userType) error {
	t.Helper()
	for _, sql := range tc.setup {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			if strings.HasPrefix(sql, extension) {
				return err
			}
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if tc.typ == "xml" {
		if _, err := conn.Exec(t.Context(), "SELECT '<a/>'::xml"); err != nil {
			return err
		}
	}
	generated := ""
	if tc.generated != "" {
		generated = ", generated " + tc.generated
	}
	exec(t, conn, "CREATE TABLE things (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v "+tc.typ+generated+")")
	for _, v := range tc.values {
		exec(t, conn, "INSERT INTO things (v) VALUES ("+v+")")
	}
	exec(t, conn, "INSERT INTO things DEFAULT VALUES")
	return nil
}

// sameJSON compares a record of the table things with to_jsonb of the row in it.
func sameJSON(t *testing.T, conn *pgx.Conn, what, doc, id string) {
	t.Helper()
	var equal bool
	var want string
	err := conn.QueryRow(t.Context(), `
		WITH pinned AS MATERIALIZED (
			SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),
				set_config('intervalstyle', 'postgres', true), set_config('bytea_output', 'hex', true))
		SELECT $1::jsonb = to_jsonb(e) - 'generated', (to_jsonb(e) - 'generated')::text
		FROM pinned, things e WHERE id = $2::text::int`, doc, id).Scan(&equal, &want)
	if err != nil || !equal {
		t.Errorf("%s of row %s:\n got %s\nwant %s (%v)", what, id, doc, want, err)
	}
}

func TestCompositeThatIsAltered(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Database(t))
	exec(t, conn, `CREATE TYPE pair AS (a int, b text)`, `CREATE TABLE things (id int PRIMARY KEY, v pair, w pair[])`,
		`INSERT INTO things VALUES (1, (1, 'x'), ARRAY[ROW(1, 'y')::pair])`)
	var rec listenertest.Recorder
	src := run(t, conn.Config().ConnString(), nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, `INSERT INTO things VALUES (2, (2, 'x'), NULL)`)
	src.caughtUp()
	exec(t, conn, `ALTER TYPE pair ADD ATTRIBUTE c bool`, `INSERT INTO things VALUES (3, (3, 'x', true), NULL)`)
	src.caughtUp()
	exec(t, conn, `ALTER TYPE pair DROP ATTRIBUTE a`, `INSERT INTO things VALUES (4, NULL, ARRAY[ROW('y', true)::pair])`)
	src.caughtUp()
	// No row says that a field has another name; the next message about the table does.
	exec(t, conn, `ALTER TYPE pair RENAME ATTRIBUTE c TO yes`, `ALTER TABLE things ADD COLUMN n int`, `INSERT INTO things VALUES (5, ('z', false), NULL)`)
	src.caughtUp()
	want := []string{
		`read public.things/1: null -> {"id":1,"v":{"a":1,"b":"x"},"w":[{"a":1,"b":"y"}]}`,
		`create public.things/2: null -> {"id":2,"v":{"a":2,"b":"x"},"w":null}`,
		`create public.things/3: null -> {"id":3,"v":{"a":3,"b":"x","c":true},"w":null}`,
		`create public.things/4: null -> {"id":4,"v":null,"w":[{"b":"y","c":true}]}`,
		`create public.things/5: null -> {"id":5,"v":{"b":"z","yes":false},"w":null,"n":null}`,
	}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestTypesThatChangedBeforeTheirRowsAreRead(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Database(t))
	exec(t, conn, `CREATE TYPE pair AS (a int, b text)`, `CREATE DOMAIN gone AS int`, `CREATE TABLE things (id int PRIMARY KEY, v pair, d gone)`)
	var rec listenertest.Recorder
	src := run(t, conn.Config().ConnString(), nil, record(t, &rec, nil))
	src.caughtUp()
	src.stop()
	exec(t, conn, `INSERT INTO things VALUES (1, (1, 'x'), 1)`, `INSERT INTO things VALUES (2, (2, 'x'), 2)`, `ALTER TYPE pair ADD ATTRIBUTE c bool`,
		`INSERT INTO things VALUES (3, (3, 'x', true), 3)`, `ALTER TABLE things DROP COLUMN d`, `DROP DOMAIN gone`,
		`INSERT INTO things VALUES (4, (4, 'x', true))`, `ALTER TYPE pair ADD ATTRIBUTE d int`)
	rec = listenertest.Recorder{}
	src = run(t, conn.Config().ConnString(), nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, `INSERT INTO things VALUES (5, (5, 'x', true, 1))`, `ALTER TYPE pair DROP ATTRIBUTE d`, `INSERT INTO things VALUES (6, (6, 'x', true))`)
	src.caughtUp()
	want := []string{
		`create public.things/1: null -> {"id":1,"v":"(1,x)","d":"1"}`, // text, where nobody knows better
		`create public.things/2: null -> {"id":2,"v":"(2,x)","d":"2"}`,
		`create public.things/3: null -> {"id":3,"v":"(3,x,t)","d":"3"}`,
		`create public.things/4: null -> {"id":4,"v":"(4,x,t)"}`,
		`create public.things/5: null -> {"id":5,"v":{"a":5,"b":"x","c":true,"d":1}}`,
		`create public.things/6: null -> {"id":6,"v":{"a":6,"b":"x","c":true}}`,
	}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// to_jsonb would call the cast.
func TestTypeWithACastToJSONIsText(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Database(t))
	exec(t, conn, `CREATE TYPE mood AS ENUM ('sad')`,
		`CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql AS $$ SELECT json_build_object('mood', $1::text) $$`,
		`CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)`,
		`CREATE TABLE things (id int PRIMARY KEY, v mood, w mood[])`, `INSERT INTO things VALUES (1, 'sad', '{sad}')`)
	var rec listenertest.Recorder
	src := run(t, conn.Config().ConnString(), nil, record(t, &rec, nil))
	src.caughtUp()
	want := []string{`read public.things/1: null -> {"id":1,"v":"sad","w":["sad"]}`}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

type place struct {
	Street string
	No     *int
	Labels []string `db:"tags"`
}

type visitor struct {
	ID     int
	Home   place
	Others []*place
	Work   any
	Mood   string
	Moods  []string
	Age    int
}

func TestTypedHandlersGetUserTypes(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Database(t))
	exec(t, conn, `CREATE TYPE place AS (street text, "no" int, tags text[])`, `CREATE TYPE mood AS ENUM ('happy', 'so so')`, `CREATE DOMAIN years AS int`,
		`CREATE TABLE visitors (id int PRIMARY KEY, home place, others place[], work place, mood mood, moods mood[], age years)`,
		`INSERT INTO visitors VALUES (1, ('Main St', 5, '{a,"b c"}'), ARRAY[ROW('', NULL, NULL)::place, NULL], ('x', NULL, '{}'), 'so so', '{happy,so so}', 7)`)
	var read, created []visitor
	src := run(t, conn.Config().ConnString(), nil, func(src *cdc.Source) {
		_, err := src.Table("public.visitors").Subscribe("typed", listeners.Handlers[visitor]{
			OnRead: func(_ context.Context, c listeners.Change[visitor]) error { read = append(read, c.After); return nil },
			OnCreate: func(_ context.Context, c listeners.Change[visitor]) error {
				created = append(created, c.After)
				return nil
			},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	})
	src.caughtUp()
	exec(t, conn, `INSERT INTO visitors SELECT 2, home, others, work, mood, moods, age FROM visitors`)
	src.caughtUp()
	src.stop()
	want := visitor{
		ID: 1, Home: place{Street: "Main St", No: new(5), Labels: []string{"a", "b c"}},
		Others: []*place{{}, nil}, Work: map[string]any{"street": "x", "no": nil, "tags": []any{}},
		Mood: "so so", Moods: []string{"happy", "so so"}, Age: 7,
	}
	if diff := cmp.Diff([]visitor{want}, read); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	want.ID = 2
	if diff := cmp.Diff([]visitor{want}, created); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
}
