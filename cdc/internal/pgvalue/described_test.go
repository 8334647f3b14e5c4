package pgvalue_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
)

// Types as a catalog would describe them.
var (
	mood      = pgvalue.Text(20001, "public.mood")
	moods     = pgvalue.ArrayOf(20002, "public.mood[]", mood, ',')
	price     = pgvalue.Domain(20003, "public.price", pgvalue.Of(oidNumeric))
	ids       = pgvalue.Domain(20004, "public.ids", pgvalue.Of(oidInt4Array))
	docDomain = pgvalue.Domain(20005, "public.doc", pgvalue.Of(oidJSONB))
	hstore    = pgvalue.Hstore(20006, "public.hstore")
	pair      = pgvalue.Composite(20007, "public.pair", []pgvalue.Field{{"a", pgvalue.Of(oidInt4)}, {`b "c"`, pgvalue.Of(oidText)}})
	pairs     = pgvalue.ArrayOf(20008, "public.pair[]", pair, ',')
	couple    = pgvalue.Composite(20009, "public.couple", []pgvalue.Field{{"one", pair}, {"others", pairs}, {"prices", pgvalue.ArrayOf(20010, "", price, ',')}})
	noted     = pgvalue.Composite(20011, "public.noted", []pgvalue.Field{{"doc", docDomain}, {"t", pgvalue.Of(oidText)}})
	single    = pgvalue.Composite(20012, "public.single", []pgvalue.Field{{"t", pgvalue.Of(oidText)}})
	empty     = pgvalue.Composite(20013, "public.empty", nil)
	boxes     = pgvalue.ArrayOf(20014, "", pgvalue.Text(20015, "public.area"), ';')
	idsArray  = pgvalue.ArrayOf(20016, "public.ids[]", ids, ',')
)

func TestAppendJSONOfDescribedTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		typ  *pgvalue.Type
		in   string
		want string
	}{
		"enum":                             {mood, `very "happy"`, `"very \"happy\""`},
		"array of an enum":                 {moods, `{sad,"very happy",NULL,"NULL"}`, `["sad","very happy",null,"NULL"]`},
		"array with semicolons":            {boxes, `{(1,1),(0,0);NULL}`, `["(1,1),(0,0)",null]`},
		"domain over numeric":              {price, "1.10", "1.10"},
		"domain over an array":             {ids, "{1,NULL}", "[1,null]"},
		"array of domains over arrays":     {idsArray, `{"{1,2}",NULL,"{}"}`, "[[1,2],null,[]]"},
		"domain over jsonb":                {docDomain, `{"a": 1.0}`, `{"a": 1.0}`},
		"composite":                        {pair, "(1,x)", `{"a":1,"b \"c\"":"x"}`},
		"composite of NULLs":               {pair, "(,)", `{"a":null,"b \"c\"":null}`},
		"composite with an empty string":   {pair, `(,"")`, `{"a":null,"b \"c\"":""}`},
		"composite with escapes":           {pair, `(1,"q""\\ (,)")`, `{"a":1,"b \"c\"":"q\"\\ (,)"}`},
		"composite with backslashed quote": {pair, `(1,"q\"")`, `{"a":1,"b \"c\"":"q\""}`},
		"composite with the word NULL":     {pair, `(,NULL)`, `{"a":null,"b \"c\"":"NULL"}`},
		"composite of one field":           {single, "()", `{"t":null}`},
		"composite of one empty string":    {single, `("")`, `{"t":""}`},
		"composite of no field":            {empty, "()", `{}`},
		"array of composites":              {pairs, `{"(1,x)",NULL,"(2,\"a \"\" b\\\\\")"}`, `[{"a":1,"b \"c\"":"x"},null,{"a":2,"b \"c\"":"a \" b\\"}]`},
		"composites nested": {
			couple, `("(1,""a b"")","{""(2,x)"",NULL}","{1.10,NaN}")`,
			`{"one":{"a":1,"b \"c\"":"a b"},"others":[{"a":2,"b \"c\"":"x"},null],"prices":[1.10,"NaN"]}`,
		},
		"composite with json":               {noted, `("{""a"": [1]}",x)`, `{"doc":{"a": [1]},"t":"x"}`},
		"composite with what is no json":    {noted, `(no,x)`, `"(no,x)"`},
		"composite with fewer fields":       {pair, "(1)", `"(1)"`},
		"composite with more fields":        {pair, "(1,x,)", `"(1,x,)"`},
		"composite of no field with one":    {empty, "(1)", `"(1)"`},
		"one malformed inside":              {couple, `("(1)",,)`, `{"one":"(1)","others":null,"prices":null}`},
		"malformed composite":               {pair, "1,x", `"1,x"`},
		"malformed composite open":          {pair, "(1,x", `"(1,x"`},
		"malformed composite open quote":    {pair, `(1,"x)`, `"(1,\"x)"`},
		"malformed composite behind quote":  {pair, `(1,"x"y)`, `"(1,\"x\"y)"`},
		"malformed composite quote in text": {pair, `(1,x"y")`, `"(1,x\"y\")"`},
		"malformed composite parenthesis":   {pair, `(1,(x))`, `"(1,(x))"`},
		"malformed composite escape at end": {pair, `(1,"x\)`, `"(1,\"x\\)"`},
		"malformed composite nothing":       {pair, ``, `""`},
		"hstore":                            {hstore, `"a"=>"1", "b c"=>NULL, "q\"\\"=>"x, \"=>", ""=>""`, `{"a":"1","b c":null,"q\"\\":"x, \"=>","":""}`},
		"hstore empty":                      {hstore, ``, `{}`},
		"malformed hstore value":            {hstore, `"a"=>1`, `"\"a\"=>1"`},
		"malformed hstore comma":            {hstore, `"a"=>"1", `, `"\"a\"=>\"1\", "`},
		"malformed hstore without value":    {hstore, `"a"`, `"\"a\""`},
		"malformed hstore open":             {hstore, `"a"=>"1`, `"\"a\"=>\"1"`},
		"malformed hstore key":              {hstore, `a=>"1"`, `"a=>\"1\""`},
		"malformed hstore without a comma":  {hstore, `"a"=>NULL"b"=>NULL`, `"\"a\"=>NULL\"b\"=>NULL"`},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(tc.typ.AppendJSON([]byte("before "), []byte(tc.in)))
			got, ok := strings.CutPrefix(got, "before ")
			if !ok || got != tc.want {
				t.Errorf("AppendJSON(before, %q) of %s = %s (kept what was there: %t), want %s", tc.in, tc.typ.Name(), got, ok, tc.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("AppendJSON(before, %q) of %s = %s, which is not valid JSON", tc.in, tc.typ.Name(), got)
			}
		})
	}
}

func TestAppendJSONOfDescribedTypesAllocatesNothingWhenDstIsLarge(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for _, tc := range []struct {
		typ *pgvalue.Type
		in  string
	}{
		{pair, `(1,"q""\\ (,)")`},
		{couple, `("(1,""a b"")","{""(2,x)"",NULL}","{1.10,NaN}")`},
		{hstore, `"a"=>"1", "q\""=>NULL`},
	} {
		text := []byte(tc.in)
		if n := testing.AllocsPerRun(100, func() { tc.typ.AppendJSON(dst, text) }); n != 0 {
			t.Errorf("AppendJSON of %s %q allocates %v times, want 0", tc.typ.Name(), tc.in, n)
		}
	}
}

func TestTypesBeyondTheDepthLimitAreText(t *testing.T) {
	array, composite := mood, mood
	for range 32 {
		array = pgvalue.ArrayOf(1, "", pgvalue.Domain(2, "", array), ',')
		composite = pgvalue.Composite(3, "", []pgvalue.Field{{"f", composite}})
	}
	for _, tc := range []struct {
		typ      *pgvalue.Type
		in, want string
	}{
		{array, "{NULL}", `[null]`},
		{composite, "()", `{"f":null}`},
		{pgvalue.ArrayOf(1, "", array, ','), "{NULL}", `"{NULL}"`},
		{pgvalue.ArrayOf(1, "", composite, ','), "{NULL}", `"{NULL}"`},
		{pgvalue.Composite(1, "", []pgvalue.Field{{"f", array}}), "()", `"()"`},
	} {
		if got := string(tc.typ.AppendJSON(nil, []byte(tc.in))); got != tc.want {
			t.Errorf("AppendJSON(%q) = %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestFits(t *testing.T) {
	for name, tc := range map[string]struct {
		typ  *pgvalue.Type
		in   string
		want bool
	}{
		"no composite inside": {moods, "garbage", true},
		"composite":           {pair, `(1,"x")`, true},
		"fewer fields":        {pair, "(1)", false},
		"more fields":         {pair, "(1,2,3)", false},
		"array":               {pairs, `{"(1,x)",NULL}`, true},
		"array, one differs":  {pairs, `{"(1,x)","(1)"}`, false},
		"array of two":        {pairs, `{{"(1,x)"},{"(1,x,)"}}`, false},
		"inside":              {couple, `("(1,""a b"")","{""(2,x)"",NULL}",)`, true},
		"inside, one differs": {couple, `(,"{""(2,x)"",""(2)""}",)`, false},
		"domain over it":      {pgvalue.Domain(1, "", pair), "(1)", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.typ.Fits([]byte(tc.in)); got != tc.want {
				t.Errorf("Fits(%q) of %s = %t, want %t", tc.in, tc.typ.Name(), got, tc.want)
			}
		})
	}
}

func TestScanDescribedTypes(t *testing.T) {
	type pairStruct struct {
		A  *int
		B  string `db:"b \"c\""`
		No string
	}
	type named map[string]string
	type keyed map[colour]any
	x := "x"
	for name, tc := range map[string]struct {
		typ  *pgvalue.Type
		in   string
		dst  any
		want any
	}{
		"enum into a string":             {mood, "sad", new(colour), new(colour("sad"))},
		"enums into strings":             {moods, "{sad,NULL}", new([]*colour), &[]*colour{new(colour("sad")), nil}},
		"domain into an int":             {price, "7.00", new(int), new(7)},
		"domain into any":                {price, "7.00", new(any), new(any("7.00"))},
		"domain over an array":           {ids, "{1,2}", new([]int), &[]int{1, 2}},
		"array of those":                 {idsArray, `{"{1,2}",NULL}`, new([][]int), &[][]int{{1, 2}, nil}},
		"json into a struct":             {docDomain, `{"A": 3}`, new(struct{ A int }), &struct{ A int }{3}},
		"composite into a struct":        {pair, "(1,x)", &pairStruct{B: "old", No: "old"}, &pairStruct{A: new(1), B: "x"}},
		"composite into a pointer":       {pair, "(1,x)", new(*pairStruct), new(&pairStruct{A: new(1), B: "x"})},
		"composite with NULL":            {pair, `(,"")`, new(pairStruct), &pairStruct{}},
		"composite into a map":           {pair, "(1,x)", &map[string]string{"z": ""}, &map[string]string{"a": "1", `b "c"`: "x"}},
		"composite into a map of any":    {pair, "(,x)", new(keyed), &keyed{"a": nil, `b "c"`: "x"}},
		"composite into any":             {pair, `(1,"""")`, new(any), new(any(map[string]any{"a": int64(1), `b "c"`: `"`}))},
		"composite into a string":        {pair, "(1,x)", new(string), new("(1,x)")},
		"composite into JSON":            {pair, "(1,x)", new(json.RawMessage), new(json.RawMessage(`{"a":1,"b \"c\"":"x"}`))},
		"composites into structs":        {pairs, `{"(1,x)",NULL}`, new([]*pairStruct), &[]*pairStruct{{A: new(1), B: "x"}, nil}},
		"composites into any":            {pairs, `{"(1,x)",NULL}`, new(any), new(any([]any{map[string]any{"a": int64(1), `b "c"`: "x"}, nil}))},
		"nested into a struct":           {couple, `("(1,x)","{""(2,y)""}",{1.10})`, new(coupleStruct), &coupleStruct{One: map[string]any{"a": int64(1), `b "c"`: "x"}, Others: []map[string]string{{"a": "2", `b "c"`: "y"}}, Prices: []float64{1.1}}},
		"hstore into a map":              {hstore, `"a"=>"x", "q\""=>"\\"`, new(map[string]string), &map[string]string{"a": "x", `q"`: `\`}},
		"hstore into a map of its own":   {hstore, `"a"=>""`, new(named), &named{"a": ""}},
		"hstore into a map of pointers":  {hstore, `"a"=>"x", "b"=>NULL`, new(map[string]*string), &map[string]*string{"a": &x, "b": nil}},
		"hstore into a map of integers":  {hstore, `"a"=>"5"`, new(map[string]int), &map[string]int{"a": 5}},
		"hstore into any":                {hstore, `"a"=>"x", "b"=>NULL`, new(any), new(any(map[string]any{"a": "x", "b": nil}))},
		"empty hstore":                   {hstore, ``, &map[string]string{"old": ""}, &map[string]string{}},
		"unescaped text is its own copy": {single, `("""")`, new(struct{ T []byte }), &struct{ T []byte }{[]byte(`"`)}},
	} {
		t.Run(name, func(t *testing.T) {
			text := []byte(tc.in)
			if err := tc.typ.Scan(text, tc.dst); err != nil {
				t.Fatalf("Scan(%q) of %s into %T: %v", tc.in, tc.typ.Name(), tc.dst, err)
			}
			clear(text)
			if diff := cmp.Diff(tc.want, tc.dst); diff != "" {
				t.Errorf("Scan(%q) of %s into %T (-want +got):\n%s", tc.in, tc.typ.Name(), tc.dst, diff)
			}
		})
	}
}

type colour string

type coupleStruct struct {
	One    any
	Others []map[string]string
	Prices []float64
}

func TestScanErrorsOfDescribedTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		typ  *pgvalue.Type
		in   string
		dst  any
		want string
	}{
		"other number of fields":  {pair, "(1)", new(map[string]any), `scan public.pair "(1)" into map[string]interface {}: malformed composite`},
		"struct, malformed":       {pair, "1", new(struct{ A int }), "malformed composite"},
		"NULL into a plain field": {pair, "(,x)", new(struct{ A int }), "public.pair.a into struct { A int }.A: scan integer NULL into int: column is NULL, use *int"},
		"field of no such column": {
			pair, "(1,x)", new(struct {
				Z int `db:"z"`
			}), `wants column "z", which public.pair does not have (it has a, b "c")`,
		},
		"map with other keys":    {pair, "(1,x)", new(map[int]string), "no conversion"},
		"map value":              {pair, "(1,x)", new(map[string]int), `field "b \"c\"": scan text "x" into int`},
		"map of an enum":         {mood, "sad", new(map[string]string), "no conversion"},
		"hstore, malformed":      {hstore, "a", new(map[string]string), "malformed hstore"},
		"hstore NULL":            {hstore, `"a"=>NULL`, new(map[string]string), "NULL, use *string"},
		"hstore into a struct":   {hstore, `"a"=>"1"`, new(struct{ A string }), "no conversion"},
		"composite into an int":  {pair, "(1,x)", new(int), "no conversion"},
		"composite into a time":  {pair, "(1,x)", new(time.Time), "no conversion"},
		"composite into a slice": {pair, "(1,x)", new([]string), "no conversion"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.typ.Scan([]byte(tc.in), tc.dst)
			if _, ok := errors.AsType[*pgvalue.ScanError](err); !ok || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Scan(%q) of %s into %T = %v, want a ScanError with %q", tc.in, tc.typ.Name(), tc.dst, err, tc.want)
			}
		})
	}
}

// FuzzComposite gives composites, arrays of them and hstore any text: the JSON is
// valid whatever it is, and Scan does not panic.
func FuzzComposite(f *testing.F) {
	for _, seed := range []string{
		"(1,x)", "(,)", `(1,"q""\\ (,)")`, `("(1,""a b"")","{""(2,x)"",NULL}","{1.10,NaN}")`, `("{""a"": [1]}",x)`, "()", `("")`,
		`{"(1,x)",NULL,"(2,\"a \"\" b\\\\\")"}`, `"a"=>"1", "q\"\\"=>NULL`, `(1,"x\)`, `({},x)`, `(1`, `[0:1]={"()"}`,
	} {
		f.Add([]byte(seed))
	}
	types := []*pgvalue.Type{pair, pairs, couple, noted, single, empty, hstore, moods, idsArray, pgvalue.ArrayOf(1, "", noted, ',')}
	f.Fuzz(func(t *testing.T, text []byte) {
		text = slices.Clip(text)
		for _, typ := range types {
			kept := string(text)
			got := typ.AppendJSON(nil, text)
			if !json.Valid(got) {
				t.Errorf("AppendJSON(%q) of %s = %s, which is not valid JSON", text, typ.Name(), got)
			}
			if string(text) != kept {
				t.Errorf("AppendJSON(%q) of %s changed its text to %q", kept, typ.Name(), text)
			}
			var v any
			err := typ.Scan(text, &v)
			if typ == pair || typ == couple {
				if fits := typ.Fits(text); !fits && typ == pair && (err == nil || got[0] != '"') {
					t.Errorf("%q does not fit %s, but its JSON is %s and Scan says %v", text, typ.Name(), got, err)
				}
			}
		}
	})
}
