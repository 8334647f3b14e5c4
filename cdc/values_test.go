package cdc_test

import (
	"testing"

	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// The contract in one sentence: a record's JSON equals to_jsonb(row).
func TestRecordJSONEqualsToJsonb(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn,
		// A session's settings are not the reader's: values must not change with them.
		"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = ''German, DMY''', current_database()); "+
			"EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database()); "+
			"EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database()); "+
			"EXECUTE format('ALTER DATABASE %I SET intervalstyle = ''iso_8601''', current_database()); "+
			"EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database()); END $$",
		`CREATE TABLE everything (id int PRIMARY KEY, i2 int2, i4 int4, i8 int8, num numeric, f4 float4, f8 float8, b bool,
			t text, v varchar(50), c char(5), u uuid, j json, jb jsonb, d date, ts timestamp, tz timestamptz, by bytea,
			ta text[], ia int[], na numeric[], tza timestamptz[], ba bytea[], iv interval, ti time, inet inet)`,
		`INSERT INTO everything VALUES
			(1, -32768, 2147483647, 9223372036854775807, 12345678901234567890.123456789000, 1.5, 0.1, true,
			 E'quote " back \\ tab \t line \n nul-ish \u0001 umlaut ä 😀', 'v', 'c', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
			 E'{"a": [1, 2.50],\n "b": null}', '{"big": 12345678901234567890, "x": 1.10}', '2024-02-29', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56+05:30', '\x00ff10',
			 '{a,"b c",NULL,"q\"x",""}', '{1,-2,NULL}', '{1.10,NaN}', '{2024-01-01 00:00:00+00,infinity}', '{"\\x00","\\xff"}', '1 year 2 days 03:04:05.6', '23:59:59.999', '10.0.0.0/8'),
			(2, 0, 0, 0, 'NaN', 'NaN', 'Infinity', false, '', '', '', '00000000-0000-0000-0000-000000000000', '[]', '"s"',
			 'infinity', '-infinity', 'infinity', '', '{}', '{{1,2},{3,4}}', '{}', '{}', '{}', '-1 month', '00:00', '::1'),
			(3, NULL, NULL, NULL, '-0.00', '-Infinity', 1e300, NULL, NULL, NULL, NULL, NULL, 'null', NULL,
			 '0044-03-15 BC', '0044-03-15 10:00:00 BC', '0044-03-15 10:00:00+00 BC', NULL, NULL, '[0:1]={7,8}', NULL, NULL, NULL, NULL, NULL, NULL)`)
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "ALTER TABLE everything REPLICA IDENTITY FULL", "UPDATE everything SET i2 = 1")
	src.caughtUp()
	events := rec.Events()
	if len(events) != 6 {
		t.Fatalf("got %d events, want 3 reads and 3 updates", len(events))
	}
	check := func(what, doc, id, override string) {
		t.Helper()
		var equal bool
		var want string
		err := conn.QueryRow(t.Context(), `
			WITH pinned AS MATERIALIZED (
				SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true), set_config('extra_float_digits', '1', true),
					set_config('intervalstyle', 'postgres', true), set_config('bytea_output', 'hex', true))
			SELECT $1::jsonb = to_jsonb(e) || $3::jsonb, (to_jsonb(e) || $3::jsonb)::text FROM pinned, everything e WHERE id = $2::text::int`,
			doc, id, override).Scan(&equal, &want)
		if err != nil || !equal {
			t.Errorf("%s of row %s:\n got %s\nwant %s (%v)", what, id, doc, want, err)
		}
	}
	before := map[string]string{"1": `{"i2": -32768}`, "2": `{"i2": 0}`, "3": `{"i2": null}`}
	for _, e := range events[:3] {
		check("read", e.After, e.Key, before[e.Key])
	}
	for _, e := range events[3:] {
		check("update", e.After, e.Key, "{}")
		check("before of the update", e.Before, e.Key, before[e.Key])
	}
}
