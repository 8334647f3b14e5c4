package pgvalue_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
)

type (
	status  string
	level   int8
	ratio   float32
	flag    bool
	blob    []byte
	id      [16]byte
	stamp   time.Time
	numbers []int64
	profile struct {
		Name string `json:"name"`
		Age  *int   `json:"age"`
	}
)

// upper is a TextUnmarshaler.
type upper struct{ s string }

func (u *upper) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		return errors.New("empty")
	}
	u.s += strings.ToUpper(string(b))
	return nil
}

// witness is a Scanner that keeps what it is given.
type witness struct{ src any }

func (w *witness) Scan(src any) error {
	w.src = src
	return nil
}

var theID = [16]byte{0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11}

const theIDText = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"

func utc(year int, month time.Month, day, hour, minute, sec, nsec int) time.Time {
	return time.Date(year, month, day, hour, minute, sec, nsec, time.UTC)
}

// TestScan scans into a new variable of the type of want.
func TestScan(t *testing.T) {
	for name, tc := range map[string]struct {
		oid  uint32
		in   string
		want any
	}{
		"text string":             {oidText, "a", "a"},
		"int string":              {oidInt4, "5", "5"},
		"array string":            {oidInt4Array, "{1}", "{1}"},
		"named string":            {oidText, "sold", status("sold")},
		"text bytes":              {oidText, "ab", []byte("ab")},
		"bytea":                   {oidBytea, `\xDEad`, []byte{0xde, 0xad}},
		"bytea empty":             {oidBytea, `\x`, []byte{}},
		"bytea named":             {oidBytea, `\x00`, blob{0}},
		"bool":                    {oidBool, "t", true},
		"bool named":              {oidBool, "f", flag(false)},
		"bool of a domain":        {oidUnknown, "t", true},
		"int":                     {oidInt4, "-7", -7},
		"int8":                    {oidInt2, "-128", int8(-128)},
		"int16":                   {oidInt8, "32767", int16(32767)},
		"int32":                   {oidInt8, "-2147483648", int32(math.MinInt32)},
		"int64":                   {oidInt8, "-9223372036854775808", int64(math.MinInt64)},
		"int named":               {oidInt2, "3", level(3)},
		"int of a domain":         {oidUnknown, "3", 3},
		"uint":                    {oidInt8, "7", uint(7)},
		"uint8":                   {oidInt2, "255", uint8(255)},
		"uint16":                  {oidInt4, "65535", uint16(65535)},
		"uint32 of oid":           {oidOid, "4294967295", uint32(math.MaxUint32)},
		"uint64 of xid8":          {oidXID8, "18446744073709551615", uint64(math.MaxUint64)},
		"numeric int":             {oidNumeric, "12.000", 12},
		"numeric float":           {oidNumeric, "12.5", 12.5},
		"numeric json.Number":     {oidNumeric, "12.50", json.Number("12.50")},
		"float64":                 {oidFloat8, "1e+20", 1e20},
		"float64 infinity":        {oidFloat8, "-Infinity", math.Inf(-1)},
		"float32":                 {oidFloat4, "3.4", float32(3.4)},
		"float32 named":           {oidFloat4, "0.5", ratio(0.5)},
		"float of int":            {oidInt4, "2", 2.0},
		"date":                    {oidDate, "2024-02-29", utc(2024, 2, 29, 0, 0, 0, 0)},
		"date BC":                 {oidDate, "0044-03-15 BC", utc(-43, 3, 15, 0, 0, 0, 0)},
		"date far":                {oidDate, "5874897-12-31", utc(5874897, 12, 31, 0, 0, 0, 0)},
		"timestamp":               {oidTimestamp, "2024-01-01 10:11:12.5", utc(2024, 1, 1, 10, 11, 12, 500_000_000)},
		"timestamptz":             {oidTimestamptz, "2024-01-01 10:11:12.000001+00", utc(2024, 1, 1, 10, 11, 12, 1000)},
		"timestamptz offset":      {oidTimestamptz, "2024-01-01 10:00:00+05:30", utc(2024, 1, 1, 4, 30, 0, 0)},
		"timestamptz seconds":     {oidTimestamptz, "1900-01-01 10:00:00-00:19:32", utc(1900, 1, 1, 10, 19, 32, 0)},
		"timestamptz far":         {oidTimestamptz, "294276-12-31 23:59:59.999999+00", utc(294276, 12, 31, 23, 59, 59, 999_999_000)},
		"timestamptz BC":          {oidTimestamptz, "0001-01-01 00:00:00+00 BC", utc(0, 1, 1, 0, 0, 0, 0)},
		"timestamptz named":       {oidTimestamptz, "2024-01-01 00:00:00+00", stamp(utc(2024, 1, 1, 0, 0, 0, 0))},
		"interval":                {oidInterval, "3 days 04:05:06.7", 76*time.Hour + 5*time.Minute + 6700*time.Millisecond},
		"interval negative":       {oidInterval, "-1 days +02:03:00", -24*time.Hour + 123*time.Minute},
		"interval negative time":  {oidInterval, "-00:00:00.000001", -time.Microsecond},
		"interval zero":           {oidInterval, "00:00:00", time.Duration(0)},
		"interval long":           {oidInterval, "2000000:00:00", 2_000_000 * time.Hour},
		"interval one day":        {oidInterval, "1 day", 24 * time.Hour},
		"duration of bigint":      {oidInt8, "1000", time.Microsecond},
		"uuid":                    {oidUUID, theIDText, theID},
		"uuid named":              {oidUUID, theIDText, id(theID)},
		"raw jsonb":               {oidJSONB, `{"a": 1}`, json.RawMessage(`{"a": 1}`)},
		"raw text":                {oidText, `a"`, json.RawMessage(`"a\""`)},
		"raw array":               {oidInt4Array, "{1,NULL}", json.RawMessage("[1,null]")},
		"json string":             {oidJSONB, `{"a": 1}`, `{"a": 1}`},
		"json bytes":              {oidJSON, ` 1`, []byte(" 1")},
		"json struct":             {oidJSONB, `{"name": "x", "age": 3}`, profile{"x", new(3)}},
		"json pointer":            {oidJSONB, `{"name": "x"}`, &profile{Name: "x"}},
		"json map":                {oidJSONB, `{"a": 1}`, map[string]int{"a": 1}},
		"json slice":              {oidJSONB, `[1, 2]`, []int{1, 2}},
		"json bool":               {oidJSONB, `true`, true},
		"json number":             {oidJSONB, `12`, 12},
		"json text":               {oidJSONB, `"a"`, upper{"A"}},
		"json time":               {oidJSONB, `"2024-01-01T00:00:00Z"`, utc(2024, 1, 1, 0, 0, 0, 0)},
		"json array of structs":   {oidJSONBArray, `{"{\"name\": \"x\"}"}`, []profile{{Name: "x"}}},
		"text unmarshaler":        {oidText, "abc", upper{"ABC"}},
		"inet":                    {oidInet, "10.0.0.1", netip.MustParseAddr("10.0.0.1")},
		"pointer":                 {oidInt4, "5", new(5)},
		"pointer to named":        {oidText, "a", new(status("a"))},
		"pointer to time":         {oidDate, "2024-01-01", new(utc(2024, 1, 1, 0, 0, 0, 0))},
		"pointer to pointer":      {oidInt4, "5", new(new(5))},
		"scanner text":            {oidText, "a", witness{"a"}},
		"scanner bytea":           {oidBytea, `\x00`, witness{[]byte{0}}},
		"scanner json":            {oidJSONB, `{}`, witness{"{}"}},
		"scanner timestamp":       {oidTimestamp, "2024-01-01 00:00:00", witness{"2024-01-01 00:00:00"}},
		"sql.Null":                {oidInt8, "5", sql.Null[int64]{V: 5, Valid: true}},
		"sql.Null bool":           {oidBool, "t", sql.Null[bool]{V: true, Valid: true}},
		"sql.NullTime":            {oidTimestamptz, "2024-01-01 00:00:00+00", sql.NullTime{Time: utc(2024, 1, 1, 0, 0, 0, 0), Valid: true}},
		"ints":                    {oidInt4Array, "{1,2}", []int{1, 2}},
		"ints with bounds":        {oidInt8Array, "[5:6]={1,2}", []int64{1, 2}},
		"ints named":              {oidInt8Array, "{1,2}", numbers{1, 2}},
		"ints empty":              {oidInt4Array, "{}", []int32{}},
		"uints":                   {oidInt4Array, "{1,2}", []uint16{1, 2}},
		"uints empty":             {oidInt4Array, "{}", []uint16{}},
		"matrix":                  {oidInt4Array, "{{1,2},{3,4}}", [][]int{{1, 2}, {3, 4}}},
		"cube":                    {oidInt4Array, "[0:0][0:0][0:1]={{{1,2}}}", [][][]int{{{1, 2}}}},
		"nullable ints":           {oidInt4Array, "{1,NULL}", []*int{new(1), nil}},
		"nullable matrix":         {oidInt4Array, "{{1,NULL}}", [][]sql.Null[int64]{{{V: 1, Valid: true}, {}}}},
		"strings":                 {oidTextArray, `{a,"b \"c\\","NULL"}`, []string{"a", `b "c\`, "NULL"}},
		"named strings":           {oidTextArray, `{a,"b \"c\\"}`, []status{"a", `b "c\`}},
		"byteas":                  {oidByteaArray, `{"\\x01","\\x"}`, [][]byte{{1}, {}}},
		"bytes of an array":       {oidInt4Array, "{1}", []byte("{1}")},
		"uuids":                   {oidUUIDArray, "{" + theIDText + "}", [][16]byte{theID}},
		"times":                   {oidTSArray, `{"2024-01-01 00:00:00"}`, []time.Time{utc(2024, 1, 1, 0, 0, 0, 0)}},
		"vector":                  {oidInt2vector, "1 2", []int16{1, 2}},
		"vector empty":            {oidInt2vector, "", []int16{}},
		"anys":                    {oidInt4Array, "{{1},{NULL}}", []any{[]any{int64(1)}, []any{nil}}},
		"anys of any":             {oidBoolArray, "{t,NULL}", []any{true, nil}},
		"null elements in byteas": {oidByteaArray, `{NULL}`, [][]byte{nil}},
	} {
		t.Run(name, func(t *testing.T) {
			dst := reflect.New(reflect.TypeOf(tc.want))
			text := []byte(tc.in)
			err := pgvalue.Of(tc.oid).Scan(text, dst.Interface())
			clear(text) // what was scanned must not notice
			opts := cmp.Options{
				cmp.AllowUnexported(upper{}, witness{}),
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b stamp) bool { return time.Time(a).Equal(time.Time(b)) }),
			}
			if diff := cmp.Diff(tc.want, dst.Elem().Interface(), opts); err != nil || diff != "" {
				t.Errorf("Of(%d).Scan(%q, *%T) = %v; -want +got:\n%s", tc.oid, tc.in, tc.want, err, diff)
			}
		})
	}
}

func TestScanAny(t *testing.T) {
	for name, tc := range map[string]struct {
		oid  uint32
		in   string
		want any
	}{
		"int4":        {oidInt4, "5", int64(5)},
		"oid":         {oidOid, "4294967295", int64(math.MaxUint32)},
		"numeric":     {oidNumeric, "1.50", "1.50"},
		"float4":      {oidFloat4, "3.4", 3.4},
		"bool":        {oidBool, "f", false},
		"text":        {oidText, "a", "a"},
		"unknown":     {oidUnknown, "5", "5"},
		"inet":        {oidInet, "::1", "::1"},
		"date":        {oidDate, "2024-01-01", utc(2024, 1, 1, 0, 0, 0, 0)},
		"infinity":    {oidTimestamptz, "infinity", "infinity"},
		"interval":    {oidInterval, "1 mon", "1 mon"},
		"json":        {oidJSON, "[1 ]", json.RawMessage("[1 ]")},
		"bytea":       {oidBytea, `\x01`, []byte{1}},
		"uuid":        {oidUUID, theIDText, theIDText},
		"array":       {oidInt4Array, "{1,NULL}", []any{int64(1), nil}},
		"empty array": {oidInt4Array, "{}", []any{}},
		"vector":      {oidInt2vector, "1 2", []any{int64(1), int64(2)}},
	} {
		t.Run(name, func(t *testing.T) {
			type anything any
			var got any
			var named anything
			typ := pgvalue.Of(tc.oid)
			err := errors.Join(typ.Scan([]byte(tc.in), &got), typ.Scan([]byte(tc.in), &named))
			if diff := cmp.Diff([]any{tc.want, tc.want}, []any{got, named}); err != nil || diff != "" {
				t.Errorf("Of(%d).Scan(%q, *any and a named one) = %v; -want +got:\n%s", tc.oid, tc.in, err, diff)
			}
		})
	}
}

func TestScanNaN(t *testing.T) {
	var f float64
	var g float32
	typ := pgvalue.Of(oidFloat8)
	err := errors.Join(typ.Scan([]byte("NaN"), &f), typ.Scan([]byte("NaN"), &g))
	if err != nil || !math.IsNaN(f) || !math.IsNaN(float64(g)) {
		t.Errorf("Scan(NaN) = %v, %v, %v; want NaN twice", f, g, err)
	}
}

// TestScanError also checks that a failure leaves these variables as they were.
func TestScanError(t *testing.T) {
	for name, tc := range map[string]struct {
		oid  uint32
		in   string
		dst  any
		want string // the whole message
	}{
		"int range":          {oidInt8, "32768", new(int16(1)), `scan bigint "32768" into int16: value out of range`},
		"named int range":    {oidInt8, "128", new(level(1)), `scan bigint "128" into pgvalue_test.level: value out of range`},
		"uint range":         {oidInt8, "256", new(uint8(1)), `scan bigint "256" into uint8: value out of range`},
		"uint negative":      {oidInt8, "-1", new(uint64(1)), `scan bigint "-1" into uint64: value out of range`},
		"float range":        {oidFloat8, "1e+300", new(float32(1)), `scan double precision "1e+300" into float32: value out of range`},
		"int of fraction":    {oidNumeric, "1.5", new(1), `scan numeric "1.5" into int: value has a fraction`},
		"int of NaN":         {oidNumeric, "NaN", new(1), `scan numeric "NaN" into int: invalid syntax`},
		"int of text":        {oidUnknown, "red", new(1), `scan type with OID 4000000 "red" into int: invalid syntax`},
		"int of bit":         {oidBit, "101", new(1), `scan bit "101" into int: no conversion between these types`},
		"int of bool":        {oidBool, "t", new(1), `scan boolean "t" into int: no conversion between these types`},
		"bool of int":        {oidInt4, "1", new(true), `scan integer "1" into bool: no conversion between these types`},
		"bool of text":       {oidText, "yes", new(true), `scan text "yes" into bool: not a boolean`},
		"time of int":        {oidInt4, "1", new(utc(1, 1, 1, 1, 1, 1, 1)), `scan integer "1" into time.Time: no conversion between these types`},
		"time of infinity":   {oidDate, "infinity", new(utc(1, 1, 1, 1, 1, 1, 1)), `scan date "infinity" into time.Time: time.Time has no infinity, use string or a type that has one, such as pgtype.Timestamptz`},
		"time malformed":     {oidDate, "2024-13-01", new(utc(1, 1, 1, 1, 1, 1, 1)), `scan date "2024-13-01" into time.Time: malformed date or time`},
		"duration of months": {oidInterval, "1 mon", new(time.Second), `scan interval "1 mon" into time.Duration: months have no fixed length, use string`},
		"duration range":     {oidInterval, "3000000:00:00", new(time.Second), `scan interval "3000000:00:00" into time.Duration: value out of range of time.Duration, use string`},
		"duration infinity":  {oidInterval, "infinity", new(time.Second), `scan interval "infinity" into time.Duration: value out of range of time.Duration, use string`},
		"duration malformed": {oidInterval, "1 week", new(time.Second), `scan interval "1 week" into time.Duration: malformed interval`},
		"bytea escape":       {oidBytea, `a\000`, new([]byte{1}), `scan bytea "a\\000" into []uint8: not bytea in hex format`},
		"uuid malformed":     {oidUUID, "x", new([16]byte{1}), `scan uuid "x" into [16]uint8: not a UUID`},
		"array of text":      {oidText, "{1}", new([]int{1}), `scan text "{1}" into []int: no conversion between these types`},
		"array malformed":    {oidInt4Array, "{1", new([]int{1}), `scan integer[] "{1" into []int: malformed array`},
		"array element":      {oidInt4Array, "{1,300}", new([]int8{1}), `scan integer[] "{1,300}" into []int8: element 1: scan integer "300" into int8: value out of range`},
		"array null":         {oidInt4Array, "{1,NULL}", new([]int{1}), `scan integer[] "{1,NULL}" into []int: element 1: NULL, use []*int or []sql.Null[int]`},
		"array too deep":     {oidInt4Array, "{{1}}", new([]int{1}), `scan integer[] "{{1}}" into []int: array has more dimensions than the slice`},
		"array too deep too": {oidTextArray, "{{1}}", new([]status{"1"}), `scan text[] "{{1}}" into []pgvalue_test.status: array has more dimensions than the slice`},
		"array too flat":     {oidInt4Array, "{1}", new([][]int{}), `scan integer[] "{1}" into [][]int: element 0: scan integer "1" into []int: no conversion between these types`},
		"struct of text":     {oidText, "{}", new(profile{Name: "1"}), `scan text "{}" into pgvalue_test.profile: no conversion between these types`},
		"map of text":        {oidText, "{}", new(map[string]int{}), `scan text "{}" into map[string]int: no conversion between these types`},
		"interface":          {oidText, "a", new(fmt.Stringer(time.Second)), `scan text "a" into fmt.Stringer: no conversion between these types`},
		"json mismatch":      {oidJSONB, `"a"`, new(1), `scan jsonb "\"a\"" into int: decode: json: cannot unmarshal string into Go value of type int`},
		"scanner":            {oidText, "a", new(sql.Null[int64]{V: 1}), ``},
		"text unmarshaler":   {oidText, "", new(upper{}), `scan text "" into pgvalue_test.upper: empty`},
		"long text":          {oidText, strings.Repeat("é", 99), new(1), `scan text "` + strings.Repeat("é", 32) + `" into int: invalid syntax`},
		"long text cut":      {oidText, "a" + strings.Repeat("é", 99), new(1), `scan text "a` + strings.Repeat("é", 31) + `" into int: invalid syntax`},
		"pointer":            {oidText, "a", new(new(1)), `scan text "a" into *int: invalid syntax`},
	} {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprintf("%#v", reflect.ValueOf(tc.dst).Elem())
			err := pgvalue.Of(tc.oid).Scan([]byte(tc.in), tc.dst)
			if _, ok := errors.AsType[*pgvalue.ScanError](err); !ok || (tc.want != "" && err.Error() != tc.want) {
				t.Errorf("Of(%d).Scan(%q, %T) = %v\nwant a *ScanError: %s", tc.oid, tc.in, tc.dst, err, tc.want)
			}
			after := fmt.Sprintf("%#v", reflect.ValueOf(tc.dst).Elem())
			if _, scanner := tc.dst.(sql.Scanner); !scanner && before != after {
				t.Errorf("Of(%d).Scan(%q, %T) failed but changed %s to %s", tc.oid, tc.in, tc.dst, before, after)
			}
		})
	}
	err := pgvalue.Of(oidInt8).Scan([]byte("32768"), new(int16))
	if !errors.Is(err, strconv.ErrRange) {
		t.Errorf("Scan(32768, *int16) = %v, want one that is strconv.ErrRange", err)
	}
}

func TestScanIntoNoPointer(t *testing.T) {
	for _, dst := range []any{nil, 5, "a", (*string)(nil), (*witness)(nil), (*level)(nil), []int{1}, profile{}} {
		for _, oid := range []uint32{oidText, oidJSONB, oidInt4Array} {
			_, ok := errors.AsType[*pgvalue.ScanError](pgvalue.Of(oid).Scan([]byte("{}"), dst))
			_, okNull := errors.AsType[*pgvalue.ScanError](pgvalue.Of(oid).ScanNull(dst))
			if !ok || !okNull {
				t.Errorf("Of(%d) into %T: Scan fails with a *ScanError: %t, ScanNull: %t; want both", oid, dst, ok, okNull)
			}
		}
	}
}

func TestScanReusesNoMemory(t *testing.T) {
	scan := func(oid uint32, in string, dst any) {
		t.Helper()
		text := []byte(in)
		if err := pgvalue.Of(oid).Scan(text, dst); err != nil {
			t.Fatal(err)
		}
		clear(text)
	}
	type row struct {
		Bytes  []byte
		Ints   []int
		Levels []level
		Matrix [][]int
		Map    map[string]int
		Doc    []int
		Raw    json.RawMessage
		Ptr    *int
		Level  *level
		Big    big.Int
		Any    any
	}
	fill := func(r *row, n string) {
		scan(oidBytea, `\x0`+n, &r.Bytes)
		scan(oidInt4Array, "{"+n+"}", &r.Ints)
		scan(oidInt4Array, "{"+n+"}", &r.Levels)
		scan(oidInt4Array, "{{"+n+"}}", &r.Matrix)
		scan(oidJSONB, `{"`+n+`":1}`, &r.Map)
		scan(oidJSONB, "["+n+"]", &r.Doc)
		scan(oidJSONB, n, &r.Raw)
		scan(oidInt4, n, &r.Ptr)
		scan(oidInt4, n, &r.Level)
		scan(oidNumeric, n, &r.Big)
		scan(oidInt4Array, "{"+n+"}", &r.Any)
	}
	var first, fresh row
	fill(&first, "1")
	fill(&fresh, "1")
	second := first
	fill(&second, "2")
	opt := cmp.Comparer(func(a, b big.Int) bool { return a.Cmp(&b) == 0 })
	if diff := cmp.Diff(fresh, first, opt); diff != "" {
		t.Errorf("a second Scan into a copy changed the first value (-want +got):\n%s", diff)
	}
	want := row{
		Bytes: []byte{2}, Ints: []int{2}, Levels: []level{2}, Matrix: [][]int{{2}}, Map: map[string]int{"2": 1}, Doc: []int{2},
		Raw: json.RawMessage("2"), Ptr: new(2), Level: new(level(2)), Big: *big.NewInt(2), Any: []any{int64(2)},
	}
	if diff := cmp.Diff(want, second, opt); diff != "" {
		t.Errorf("the second Scan (-want +got):\n%s", diff)
	}
}

func TestScanNull(t *testing.T) {
	typ := pgvalue.Of(oidText)
	for name, dst := range map[string]any{
		"pointer":   new(new("a")),
		"slice":     new([]int{1}),
		"bytes":     new([]byte{1}),
		"raw json":  new(json.RawMessage("1")),
		"map":       new(map[string]int{"a": 1}),
		"any":       new(any(1)),
		"sql.Null":  new(sql.Null[string]{V: "a", Valid: true}),
		"a witness": new(witness{1}),
	} {
		if err := typ.ScanNull(dst); err != nil || !reflect.ValueOf(dst).Elem().IsZero() {
			t.Errorf("ScanNull(%s) = %v, variable %v; want its zero value", name, err, reflect.ValueOf(dst).Elem())
		}
	}
	for want, dst := range map[string]any{
		"scan text NULL into string: column is NULL, use *string or sql.Null[string]":          new("a"),
		"scan text NULL into time.Time: column is NULL, use *time.Time or sql.Null[time.Time]": new(time.Time),
		"scan text NULL into int: column is NULL, use *int or sql.Null[int]":                   new(1),
		"scan text NULL into [16]uint8: column is NULL, use *[16]uint8 or sql.Null[[16]uint8]": new([16]byte),
	} {
		err := typ.ScanNull(dst)
		if _, ok := errors.AsType[*pgvalue.ScanError](err); !ok || err.Error() != want {
			t.Errorf("ScanNull(%T) = %v\nwant a *ScanError: %s", dst, err, want)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, tc := range []struct {
		name string
		oid  uint32
		text string
		dst  any
	}{
		{"int64", oidInt8, "1234567890123", new(int64)},
		{"uint32", oidInt8, "1234567", new(uint32)},
		{"string", oidText, "the quick brown fox", new(string)},
		{"bool", oidBool, "t", new(bool)},
		{"float64", oidFloat8, "3.141592653589793", new(float64)},
		{"time", oidTimestamptz, "2024-01-01 10:00:00.123456+00", new(time.Time)},
		{"uuid", oidUUID, theIDText, new([16]byte)},
		{"any int", oidInt8, "1234567890123", new(any)},
		{"ints", oidInt8Array, "{1,2,3,4,5,6,7,8,9,10}", new([]int64)},
		{"named", oidText, "sold", new(status)},
	} {
		b.Run(tc.name, func(b *testing.B) {
			typ, text := pgvalue.Of(tc.oid), []byte(tc.text)
			b.ReportAllocs()
			for b.Loop() {
				if err := typ.Scan(text, tc.dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
