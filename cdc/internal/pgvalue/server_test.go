package pgvalue_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
	"github.com/rowcall/rowcall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// server is a session with the settings that package pgvalue asks for.
type server struct {
	t    *testing.T
	conn *pgconn.PgConn
}

func connect(t *testing.T) server {
	t.Helper()
	s := server{t, pgtest.Connect(t, pgtest.Database(t)).PgConn()}
	for _, set := range []string{
		"SET TimeZone = 'UTC'", "SET DateStyle = 'ISO'", "SET IntervalStyle = 'postgres'", "SET bytea_output = 'hex'",
	} {
		s.query(t, set)
	}
	return s
}

// query returns rows in text format, which is what output functions print.
func (s server) query(t fataler, sql string, args ...[]byte) *pgconn.Result {
	t.Helper()
	res := s.conn.ExecParams(s.t.Context(), sql, args, nil, nil, nil).Read()
	if res.Err != nil {
		t.Fatalf("query %s with %q: %v", sql, args, res.Err)
	}
	return res
}

// read returns the type and the text of an SQL expression.
func (s server) read(t fataler, expr string, args ...[]byte) (*pgvalue.Type, []byte) {
	t.Helper()
	res := s.query(t, "SELECT "+expr, args...)
	return pgvalue.Of(res.FieldDescriptions[0].DataTypeOID), res.Rows[0][0]
}

// checkJSON compares AppendJSON of an expression's text with to_jsonb of it.
func (s server) checkJSON(t fataler, expr string, args ...[]byte) {
	t.Helper()
	typ, text := s.read(t, expr, args...)
	if typ.Name() == "" {
		t.Fatalf("type %d of %s is unknown", typ.OID(), expr)
	}
	got := typ.AppendJSON(nil, text)
	if !json.Valid(got) {
		t.Fatalf("AppendJSON of %s %s, text %q = %s, which is not valid JSON", typ.Name(), expr, text, got)
	}
	arg := "$" + strconv.Itoa(len(args)+1)
	res := s.query(t, "SELECT to_jsonb("+expr+") = "+arg+"::jsonb, to_jsonb("+expr+")", append(args, got)...)
	if string(res.Rows[0][0]) != "t" {
		t.Fatalf("AppendJSON of %s %s, text %q = %s, to_jsonb gives %s", typ.Name(), expr, text, got, res.Rows[0][1])
	}
}

// scalars has expressions of every built-in type whose text is not a plain
// string, and of many that are.
var scalars = []string{
	`true`, `false`,
	`'-32768'::int2`, `'2147483647'::int4`, `'-9223372036854775808'::int8`, `'9007199254740993'::int8`,
	`'4294967295'::oid`, `'5'::xid`, `'18446744073709551615'::xid8`, `'7'::cid`,
	`'0'::numeric`, `'-0.10'::numeric`, `'12345678901234567890.123456789012345678900'::numeric`, `'1e100'::numeric`, `'1e-100'::numeric`,
	`'NaN'::numeric`, `'Infinity'::numeric`, `'-Infinity'::numeric`,
	`'1e-7'::float4`, `'3.4028235e38'::float4`, `'NaN'::float4`, `'Infinity'::float4`,
	`'1e20'::float8`, `'-0'::float8`, `'0.1'::float8`, `'5e-324'::float8`, `'1.7976931348623157e308'::float8`, `'NaN'::float8`, `'-Infinity'::float8`,
	`$q$it's "\/<>&$q$::text`, `''::text`, `E'\b\f\n\r\t\x01\x1f\x7f'::text`, `'é 😀  '::text`, `'null'::text`, `'{1,2}'::text`,
	`'NULL'::varchar(10)`, `'a'::char(5)`, `'  '::bpchar`, `'a "name"'::name`, `'a'::"char"`, `'"'::"char"`, `'\'::"char"`, `'\xdeadbeef'::text`,
	`'\xdeadbeef'::bytea`, `''::bytea`,
	`'2024-02-29'::date`, `'0044-03-15 BC'::date`, `'5874897-12-31'::date`, `'infinity'::date`, `'-infinity'::date`,
	`'10:00:00.5'::time`, `'24:00:00'::time`, `'10:00:00+05:30'::timetz`, `'10:00:00-00:19:32'::timetz`,
	`'2024-01-01 10:00:00'::timestamp`, `'0044-03-15 10:00:00.5 BC'::timestamp`, `'294276-12-31 23:59:59.999999'::timestamp`, `'infinity'::timestamp`,
	`'2024-01-01 10:00:00.120+05:30'::timestamptz`, `'4714-11-24 00:00:00+00 BC'::timestamptz`, `'12024-01-01'::timestamptz`, `'-infinity'::timestamptz`,
	`'1 year 2 mons -3 days -04:05:06.7'::interval`, `'0'::interval`,
	`'12345.67'::money`, `'101'::bit(3)`, `'1'::varbit`, `'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid`,
	`'10.0.0.1'::inet`, `'::1/64'::inet`, `'10.0.0.0/8'::cidr`, `'08:00:2b:01:02:03'::macaddr`, `'08:00:2b:01:02:03:04:05'::macaddr8`,
	`'{"a" : [1.10, 1e2, "\u00e9"], "a": null}'::json`, `' null '::json`, `'"NULL"'::json`,
	`'{"b": 9223372036854775808.0, "a": "\\\"{}"}'::jsonb`, `'null'::jsonb`, `'"null"'::jsonb`, `'{}'::jsonb`, `'5'::jsonb`,
	`'$.a[*] ? (@ > 1)'::jsonpath`,
	`'(1,2)'::point`, `'{1,2,3}'::line`, `'[(1,1),(2,2)]'::lseg`, `'(1,1),(0,0)'::box`, `'((1,1),(2,2))'::path`, `'((1,1),(2,2))'::polygon`, `'<(1,1),2>'::circle`,
	`'a:1 fat:2 "cat"'::tsvector`, `'a & !b'::tsquery`,
	`'[1,5)'::int4range`, `'empty'::int8range`, `'(,1.50]'::numrange`, `'[2024-01-01,2024-02-01)'::daterange`,
	`'["2024-01-01 10:00:00",infinity)'::tsrange`, `'["2024-01-01 10:00:00+02",)'::tstzrange`,
	`'{[1,2),[5,6)}'::int4multirange`, `'{}'::nummultirange`, `'{["2024-01-01","2024-01-02")}'::tstzmultirange`,
	`'16/B374D848'::pg_lsn`, `'(0,1)'::tid`, `'10:20:10,14'::txid_snapshot`, `'10:20:10,14'::pg_snapshot`,
	`'pg_class'::regclass`, `'integer'::regtype`, `'boolin'::regproc`, `'abs(integer)'::regprocedure`, `'english'::regconfig`, `'pg_catalog'::regnamespace`,
	`'1 2 3'::int2vector`, `''::int2vector`, `'1 4294967295'::oidvector`, `'a'::refcursor`,
}

func TestJSONEqualsToJSONB(t *testing.T) {
	s := connect(t)
	for _, v := range scalars {
		t.Run(v, func(t *testing.T) {
			s.checkJSON(t, v)
			s.checkJSON(t, "ARRAY["+v+", NULL, "+v+"]")
			s.checkJSON(t, "ARRAY[[["+v+"], ["+v+"]]]")
			s.checkJSON(t, "array_fill("+v+", ARRAY[2, 2], ARRAY[-1, 7])")
		})
	}
	for _, v := range []string{
		`'{}'::int[]`, `'[0:2]={1,2,3}'::int[]`, `'[0:1][2:3]={{1,2},{3,NULL}}'::int8[]`, `'{{{{{{1}}}}}}'::int[]`,
		`$q${a,"b c","NULL",NULL,"null","q\"x\\y","","{}","a,b",";"," ",'}$q$::text[]`, `E'{"a\nb\tc","\v"}'::text[]`,
		`'{(1,1),(0,0);(2,2),(1,1)}'::box[]`, `'{{(1,1),(0,0)};{(2,2),(1,1)}}'::box[]`,
		`ARRAY['"', '\', '\"', '"\\"', '{"', '}']::text[]`,
	} {
		t.Run(v, func(t *testing.T) { s.checkJSON(t, v) })
	}
}

// An xml value needs a server built with libxml.
func TestXMLEqualsToJSONB(t *testing.T) {
	s := connect(t)
	res := s.conn.ExecParams(t.Context(), `SELECT '<a/>'::xml`, nil, nil, nil, nil).Read()
	if res.Err != nil {
		t.Skipf("the server has no xml: %v", res.Err)
	}
	for _, v := range []string{`'<a b="c">&amp;</a>'::xml`, `ARRAY['<a b="c"/>', NULL]::xml[]`} {
		s.checkJSON(t, v)
	}
}

func TestEveryBuiltinTypeIsKnown(t *testing.T) {
	s := connect(t)
	// OIDs from 10000 on are not the same in every cluster.
	res := s.query(t, `SELECT oid, format_type(oid, NULL) FROM pg_type
		WHERE typnamespace = 'pg_catalog'::regnamespace AND oid < 10000 AND typrelid = 0 AND typelem NOT IN (
			SELECT oid FROM pg_type WHERE typtype IN ('p', 'c')) AND typtype IN ('b', 'r', 'm')`)
	for _, row := range res.Rows {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if got := pgvalue.Of(uint32(oid)).Name(); got != string(row[1]) {
			t.Errorf("Of(%d).Name() = %q, the server calls it %q", oid, got, row[1])
		}
	}
	if len(res.Rows) < 150 {
		t.Errorf("the server lists %d types, want at least 150", len(res.Rows))
	}
}

func TestTimeEqualsServerEpoch(t *testing.T) {
	s := connect(t)
	for _, v := range []string{
		`'2024-02-29'::date`, `'0044-03-15 BC'::date`, `'4714-11-24 BC'::date`, `'0001-01-01'::date`,
		`'2024-01-01 10:00:00.123456'::timestamp`, `'0001-12-31 23:59:59.999999 BC'::timestamp`,
		`'2024-01-01 10:00:00.1+05:30'::timestamptz`, `'290000-12-31 23:59:59.999999+00'::timestamptz`, `'4714-11-24 00:00:00+00 BC'::timestamptz`,
	} {
		t.Run(v, func(t *testing.T) { s.checkTime(t, v) })
	}
}

// checkTime compares Scan of an expression's text with the server's epoch of it.
func (s server) checkTime(t fataler, expr string, args ...[]byte) {
	t.Helper()
	typ, text := s.read(t, expr, args...)
	var got time.Time
	if err := typ.Scan(text, &got); err != nil {
		t.Fatalf("%v", err)
	}
	res := s.query(t, "SELECT trunc(extract(epoch FROM "+expr+") * 1000000)", args...)
	if want := string(res.Rows[0][0]); strconv.FormatInt(got.UnixMicro(), 10) != want || got.Location() != time.UTC {
		t.Fatalf("Scan of %s %q = %v, %d microseconds, the server says %s", typ.Name(), text, got, got.UnixMicro(), want)
	}
}

func TestRandomValues(t *testing.T) {
	s := connect(t)
	for name, property := range map[string]func(*rapid.T){
		"numeric": func(t *rapid.T) {
			v := rapid.StringMatching(`-?[0-9]{1,60}(\.[0-9]{1,40})?(e-?[0-9]{1,2})?`).Draw(t, "numeric")
			s.checkJSON(t, "$1::numeric", []byte(v))
		},
		"float8": func(t *rapid.T) {
			v := rapid.Float64().Draw(t, "float8")
			arg := []byte(strconv.FormatFloat(v, 'g', -1, 64))
			s.checkJSON(t, "$1::float8", arg)
			typ, text := s.read(t, "$1::float8", arg)
			var got float64
			if err := typ.Scan(text, &got); err != nil || got != v {
				t.Fatalf("Scan(%q) = %v, %v; want %v", text, got, err, v)
			}
		},
		"text": func(t *rapid.T) {
			s.checkJSON(t, "$1::text", []byte(drawText(t)))
		},
		"timestamptz": func(t *rapid.T) {
			// The type's range but for its last years, whose Unix time in
			// microseconds is beyond an int64.
			days := rapid.IntRange(-2_451_545, 106_741_033).Draw(t, "days since 2000")
			micros := rapid.IntRange(0, 86_400_000_000-1).Draw(t, "microseconds of the day")
			const expr = "('2000-01-01 00:00:00+00'::timestamptz + $1::interval)"
			arg := fmt.Appendf(nil, "%d days %d.%06d seconds", days, micros/1_000_000, micros%1_000_000)
			s.checkJSON(t, expr, arg)
			s.checkTime(t, expr, arg)
		},
		"int arrays": func(t *rapid.T) {
			want := rapid.SliceOfN(rapid.Ptr(rapid.Int32(), true), 0, 8).Draw(t, "ints")
			scanned[int32](t, s, "int4", want)
		},
		"text arrays": func(t *rapid.T) {
			var want []*string
			for range rapid.IntRange(0, 5).Draw(t, "length") {
				if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
					want = append(want, nil)
				} else {
					want = append(want, new(drawText(t)))
				}
			}
			scanned(t, s, "text", want)
		},
	} {
		t.Run(name, func(t *testing.T) { rapid.Check(t, property) })
	}
}

// drawText prefers the characters that arrays and JSON treat apart.
func drawText(t *rapid.T) string {
	special := rapid.SampledFrom([]rune("\"\\{},; \t\n\v'NULLnull\x01\x7fé😀\u2028"))
	s := rapid.StringOf(rapid.OneOf(special, rapid.Rune())).Draw(t, "text")
	return strings.ReplaceAll(s, "\x00", "")
}

// scanned checks the JSON of an array and of a matrix that has it twice, and
// that Scan returns the elements it was made of.
func scanned[T any](t *rapid.T, s server, elem string, want []*T) {
	t.Helper()
	arg, err := json.Marshal(append([]*T{}, want...))
	if err != nil {
		t.Fatal(err)
	}
	expr := fmt.Sprintf("ARRAY(SELECT e::%s FROM jsonb_array_elements_text($1::jsonb) WITH ORDINALITY AS x(e, n) ORDER BY n)", elem)
	s.checkJSON(t, expr, arg)
	typ, text := s.read(t, expr, arg)
	got := []*T(nil)
	if err := typ.Scan(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]*T{}, want...), got); diff != "" {
		t.Fatalf("Scan(%q) (-want +got):\n%s", text, diff)
	}
	if len(want) == 0 {
		return
	}
	matrix := "ARRAY[" + expr + ", " + expr + "]"
	s.checkJSON(t, matrix, arg)
	typ, text = s.read(t, matrix, arg)
	var gotMatrix [][]*T
	if err := typ.Scan(text, &gotMatrix); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]*T{want, want}, gotMatrix); diff != "" {
		t.Fatalf("Scan(%q) (-want +got):\n%s", text, diff)
	}
}
