package pgvalue_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
)

// OIDs as pg_type has them.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt2vector  = 22
	oidInt4        = 23
	oidText        = 25
	oidOid         = 26
	oidJSON        = 114
	oidFloat4      = 700
	oidFloat8      = 701
	oidInet        = 869
	oidBoolArray   = 1000
	oidInt4Array   = 1007
	oidTextArray   = 1009
	oidBoxArray    = 1020
	oidFloat8Array = 1022
	oidByteaArray  = 1001
	oidInt8Array   = 1016
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidTSArray     = 1115
	oidInterval    = 1186
	oidBit         = 1560
	oidNumeric     = 1700
	oidUUID        = 2950
	oidUUIDArray   = 2951
	oidJSONB       = 3802
	oidJSONBArray  = 3807
	oidJSONArray   = 199
	oidXID8        = 5069
	oidUnknown     = 4_000_000
)

func TestAppendJSON(t *testing.T) {
	for name, tc := range map[string]struct {
		oid  uint32
		in   string
		want string
	}{
		"int8":                          {oidInt8, "-9223372036854775808", "-9223372036854775808"},
		"int4 zero":                     {oidInt4, "0", "0"},
		"oid":                           {oidOid, "12", `"12"`},
		"xid8":                          {oidXID8, "12", `"12"`},
		"numeric keeps zeros":           {oidNumeric, "1234567890123456789.1200", "1234567890123456789.1200"},
		"numeric NaN":                   {oidNumeric, "NaN", `"NaN"`},
		"numeric infinity":              {oidNumeric, "-Infinity", `"-Infinity"`},
		"float8 exponent":               {oidFloat8, "1e+20", "1e+20"},
		"float8 negative exponent":      {oidFloat8, "-1.5e-07", "-1.5e-07"},
		"float4 infinity":               {oidFloat4, "Infinity", `"Infinity"`},
		"true":                          {oidBool, "t", "true"},
		"false":                         {oidBool, "f", "false"},
		"text":                          {oidText, "it's \"\\/<>&\b\f\n\r\t\x01\x7f é😀\u2028", `"it's \"\\/<>&\b\f\n\r\t\u0001` + "\x7f é😀\u2028\""},
		"empty text":                    {oidText, "", `""`},
		"unknown type":                  {oidUnknown, `"a"=>"b"`, `"\"a\"=>\"b\""`},
		"bytea":                         {oidBytea, `\xdeadbeef`, `"\\xdeadbeef"`},
		"json on one line":              {oidJSON, "{\"a\":\r\n 1,\n\"b\": \"x\\ny\"}", `{"a":   1, "b": "x\ny"}`},
		"json verbatim":                 {oidJSON, `{"a" : 1.10, "a":2}`, `{"a" : 1.10, "a":2}`},
		"jsonb":                         {oidJSONB, `{"a": 9223372036854775808}`, `{"a": 9223372036854775808}`},
		"date":                          {oidDate, "2024-01-01", `"2024-01-01"`},
		"date BC":                       {oidDate, "0044-03-15 BC", `"0044-03-15 BC"`},
		"date infinity":                 {oidDate, "-infinity", `"-infinity"`},
		"timestamp":                     {oidTimestamp, "2024-01-01 10:00:00.12", `"2024-01-01T10:00:00.12"`},
		"timestamp BC":                  {oidTimestamp, "0044-03-15 10:00:00 BC", `"0044-03-15T10:00:00 BC"`},
		"timestamptz":                   {oidTimestamptz, "2024-01-01 10:00:00+00", `"2024-01-01T10:00:00+00:00"`},
		"timestamptz far":               {oidTimestamptz, "294276-12-31 23:59:59.999999+00", `"294276-12-31T23:59:59.999999+00:00"`},
		"timestamptz BC":                {oidTimestamptz, "4714-11-24 00:00:00+00 BC", `"4714-11-24T00:00:00+00:00 BC"`},
		"timestamptz half hour":         {oidTimestamptz, "2024-01-01 10:00:00-03:30", `"2024-01-01T10:00:00-03:30"`},
		"timestamptz seconds":           {oidTimestamptz, "1900-01-01 10:00:00+00:19:32", `"1900-01-01T10:00:00+00:19:32"`},
		"timestamptz infinity":          {oidTimestamptz, "infinity", `"infinity"`},
		"array":                         {oidInt4Array, "{1,NULL,3}", "[1,null,3]"},
		"array empty":                   {oidInt4Array, "{}", "[]"},
		"array with bounds":             {oidInt4Array, "[0:1][-2:-1]={{1,2},{3,4}}", "[[1,2],[3,4]]"},
		"array quoted":                  {oidTextArray, `{a,"b c","NULL",NULL,"q\"x\\y","","{},"}`, `["a","b c","NULL",null,"q\"x\\y","","{},"]`},
		"array of braces":               {oidTextArray, `{{"}","\"}"},{"{",NULL}}`, `[["}","\"}"],["{",null]]`},
		"array of six dimensions":       {oidTextArray, "{{{{{{x}}}}}}", `[[[[[["x"]]]]]]`},
		"array with semicolons":         {oidBoxArray, "{(1,1),(0,0);(2,2),(1,1)}", `["(1,1),(0,0)","(2,2),(1,1)"]`},
		"array of floats":               {oidFloat8Array, "{NaN,1e-07}", `["NaN",1e-07]`},
		"array of booleans":             {oidBoolArray, "{t,f}", "[true,false]"},
		"array of bytea":                {oidByteaArray, `{"\\xde","\\x"}`, `["\\xde","\\x"]`},
		"array of jsonb":                {oidJSONBArray, `{"{\"a\": [1, \"\\\"\"]}",NULL,"null",5}`, `[{"a": [1, "\""]},null,null,5]`},
		"array of timestamps":           {oidTSArray, `{"2024-01-01 10:00:00",infinity}`, `["2024-01-01T10:00:00","infinity"]`},
		"vector":                        {oidInt2vector, "1 2 3", "[1,2,3]"},
		"vector empty":                  {oidInt2vector, "", "[]"},
		"malformed number":              {oidInt4, "1x", `"1x"`},
		"malformed leading zero":        {oidInt4, "01", `"01"`},
		"malformed fraction":            {oidNumeric, "1.", `"1."`},
		"malformed exponent":            {oidFloat8, "1e", `"1e"`},
		"malformed bool":                {oidBool, "true", `"true"`},
		"malformed timestamp":           {oidTimestamp, "2024-01-01 10:00:00\"", `"2024-01-01 10:00:00\""`},
		"malformed offset":              {oidTimestamptz, "2024-01-01 10:00:00+", `"2024-01-01 10:00:00+"`},
		"malformed array":               {oidInt4Array, "{1,2", `"{1,2"`},
		"malformed array comma":         {oidInt4Array, "{1,}", `"{1,}"`},
		"malformed array empty item":    {oidTextArray, "{,a}", `"{,a}"`},
		"malformed array open quote":    {oidTextArray, `{"a}`, `"{\"a}"`},
		"malformed array mixed":         {oidTextArray, "{{a},b}", `"{{a},b}"`},
		"malformed array bounds":        {oidTextArray, "[0:1", `"[0:1"`},
		"malformed array of seven dims": {oidTextArray, "{{{{{{{x}}}}}}}", `"{{{{{{{x}}}}}}}"`},
		"malformed vector":              {oidInt2vector, "1 ", `["1 "]`},
		"malformed UTF-8":               {oidText, "a\xffb\xe2\x82", "\"a\ufffdb\ufffd\ufffd\""},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(pgvalue.Of(tc.oid).AppendJSON([]byte("before "), []byte(tc.in)))
			got, ok := strings.CutPrefix(got, "before ")
			if !ok || got != tc.want {
				t.Errorf("Of(%d).AppendJSON(before, %q) = %s (kept what was there: %t), want %s", tc.oid, tc.in, got, ok, tc.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("Of(%d).AppendJSON(before, %q) = %s, which is not valid JSON", tc.oid, tc.in, got)
			}
		})
	}
}

func TestAppendJSONAllocatesNothingWhenDstIsLarge(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for _, tc := range benchValues {
		typ, text := pgvalue.Of(tc.oid), []byte(tc.text)
		if n := testing.AllocsPerRun(100, func() { typ.AppendJSON(dst, text) }); n != 0 {
			t.Errorf("AppendJSON of %s %q allocates %v times, want 0", tc.name, tc.text, n)
		}
	}
}

func TestOf(t *testing.T) {
	for oid, want := range map[uint32]string{
		oidInt8: "bigint", oidTextArray: "text[]", oidBoxArray: "box[]", oidUnknown: "",
	} {
		if typ := pgvalue.Of(oid); typ.OID() != oid || typ.Name() != want {
			t.Errorf("Of(%d) = OID %d, name %q; want name %q", oid, typ.OID(), typ.Name(), want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { pgvalue.Of(oidTextArray) }); n != 0 {
		t.Errorf("Of(%d) allocates %v times, want 0", oidTextArray, n)
	}
}

// FuzzAppendJSON leaves out json and jsonb, whose text is trusted.
func FuzzAppendJSON(f *testing.F) {
	for _, tc := range benchValues {
		f.Add(tc.oid, []byte(tc.text))
	}
	f.Add(uint32(oidInt4Array), []byte(`[0:1]={{1,"a\"},{{`))
	f.Add(uint32(oidTextArray), []byte("{\"a\\"))
	trusted := map[uint32]bool{oidJSON: true, oidJSONB: true, oidJSONArray: true, oidJSONBArray: true}
	f.Fuzz(func(t *testing.T, oid uint32, text []byte) {
		typ := pgvalue.Of(oid)
		before := string(text)
		out := typ.AppendJSON([]byte("x"), text)
		if string(text) != before {
			t.Errorf("AppendJSON of %s %q changed its text to %q", typ.Name(), before, text)
		}
		if out[0] != 'x' || (!trusted[oid] && !json.Valid(out[1:])) {
			t.Errorf("AppendJSON(x, %s %q) = %s, want valid JSON after the x", typ.Name(), text, out)
		}
		var v any
		if err := typ.Scan(text, &v); err == nil {
			checkMemory(t, typ, text, v)
		}
	})
}

// checkMemory fails if v, scanned from text, changes with text.
func checkMemory(t *testing.T, typ *pgvalue.Type, text []byte, v any) {
	t.Helper()
	before, err := json.Marshal(v)
	if err != nil {
		return // NaN, or json that was trusted
	}
	for i := range text {
		text[i] ^= 0x15
	}
	after, err := json.Marshal(v)
	if err != nil || string(before) != string(after) {
		t.Errorf("Scan of %s shares memory with its text: %s became %s, %v", typ.Name(), before, after, err)
	}
}

var benchValues = []struct {
	name string
	oid  uint32
	text string
}{
	{"int8", oidInt8, "1234567890123"},
	{"numeric", oidNumeric, "12345678.90"},
	{"float8", oidFloat8, "3.141592653589793"},
	{"bool", oidBool, "t"},
	{"text plain", oidText, "the quick brown fox jumps over the lazy dog"},
	{"text escaped", oidText, "the \"quick\" brown\nfox\tjumps over\\the lazy dog"},
	{"text unicode", oidText, "Größe: über fünfzig Äpfel für Jürgen, naïve café"},
	{"timestamptz", oidTimestamptz, "2024-01-01 10:00:00.123456+00"},
	{"date", oidDate, "2024-01-01"},
	{"uuid", oidUUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
	{"bytea", oidBytea, `\xdeadbeefdeadbeefdeadbeef`},
	{"jsonb", oidJSONB, `{"a": [1, 2, 3], "b": {"c": "d"}}`},
	{"int4 array", oidInt4Array, "{1,2,3,4,5,6,7,8,9,10}"},
	{"int4 matrix", oidInt4Array, "{{1,2,3,4,5},{6,7,8,9,10}}"},
	{"text array", oidTextArray, `{plain,"two words",NULL,"with \"quotes\" and \\"}`},
	{"jsonb array", oidJSONBArray, `{"{\"a\": 1}","{\"b\": \"c\"}"}`},
	{"int2vector", oidInt2vector, "1 2 3"},
}

func BenchmarkAppendJSON(b *testing.B) {
	for _, tc := range benchValues {
		b.Run(tc.name, func(b *testing.B) {
			typ, text := pgvalue.Of(tc.oid), []byte(tc.text)
			var dst []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				dst = typ.AppendJSON(dst[:0], text)
			}
		})
	}
}
