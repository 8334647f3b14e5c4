package grid_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

type level int

// String is not what a column's text is: two levels could share it.
func (level) String() string { return "some level" }

type route struct {
	Train uint16
	Stop  string `db:"station"`
}

type audit struct {
	ChangedAt time.Time
	By        *string
}

type everything struct {
	audit

	Train   uint16 // also a column of the key
	HTTPUrl string `db:",optional"`
	Ratio   float64
	Level   level
	Raw     []byte
	UUID    [4]byte
	Tags    []string
	Extra   map[string]int
	Any     any
	Note    sql.NullString
	Hidden  int `db:"-"`
	private int
}

// records returns the rows of a region of one entry.
func records[V any](t *testing.T, v V) listeners.Record {
	t.Helper()
	r := open[route, V](t, newGrid(t), "r", nil)
	put(t, r, route{7, "Bern"}, v)
	var after listeners.Record
	live(t, subscribe(t, r, listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for _, e := range b.Events {
			after = e.After
		}
		return nil
	}), current))
	return after
}

func full() everything {
	by := "Ada"
	return everything{
		audit: audit{time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), &by}, Train: 8, HTTPUrl: "<x>", Ratio: 0.5, Level: 3,
		Raw: []byte("ab"), UUID: [4]byte{0, 0xab, 1, 2}, Tags: []string{"a", "b"}, Extra: map[string]int{"z": 1}, Any: 5,
		Note: sql.NullString{String: "n", Valid: true}, Hidden: 1, private: 2,
	}
}

func TestColumnsFollowTheRulesOfScan(t *testing.T) {
	got := records(t, full())
	want := []listeners.Column{
		{Name: "train", Type: "uint16", Key: true},
		{Name: "station", Type: "string", Key: true},
		{Name: "changed_at", Type: "time.Time"},
		{Name: "by", Type: "*string"},
		{Name: "http_url", Type: "string"},
		{Name: "ratio", Type: "float64"},
		{Name: "level", Type: "grid_test.level"},
		{Name: "raw", Type: "[]uint8"},
		{Name: "uuid", Type: "[4]uint8"},
		{Name: "tags", Type: "[]string"},
		{Name: "extra", Type: "map[string]int"},
		{Name: "any", Type: "interface {}"},
		{Name: "note", Type: "sql.NullString"},
	}
	if diff := cmp.Diff(want, got.Schema().Columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	// The same type scanned back: a name that Scan would choose otherwise would
	// leave its field empty.
	var back everything
	if err := got.Scan(&back); err != nil {
		t.Fatalf("Scan() = %v", err)
	}
	same := full()
	same.Train, same.Hidden, same.private = 7, 0, 0 // the key counts
	if diff := cmp.Diff(same, back, cmp.AllowUnexported(everything{})); diff != "" {
		t.Errorf("scanned back (-want +got):\n%s", diff)
	}
	back.Raw[0], back.Tags[0], back.Extra["z"] = 'X', "X", 9
	if again := string(got.AppendJSON(nil)); strings.Contains(again, "X") || strings.Contains(again, "9}") {
		t.Errorf("writing to scanned slices and maps changed the region: %s", again)
	}
}

func TestColumnTexts(t *testing.T) {
	type texts map[string]string
	for name, tc := range map[string]struct {
		v    everything
		text texts
		json string
	}{
		"full": {
			full(),
			texts{
				"train": "7", "station": "Bern", "changed_at": "2026-01-02T03:04:05.000006Z", "by": "Ada", "http_url": "<x>",
				"ratio": "0.5", "level": "3", "raw": "ab", "uuid": "00ab0102", "tags": `["a","b"]`, "extra": `{"z":1}`, "any": "5", "note": "n",
			},
			`{"train":7,"station":"Bern","changed_at":"2026-01-02T03:04:05.000006Z","by":"Ada","http_url":"<x>","ratio":0.5,"level":3,` +
				`"raw":"YWI=","uuid":"00ab0102","tags":["a","b"],"extra":{"z":1},"any":5,"note":"n"}`,
		},
		"empty": {
			everything{Ratio: math.Inf(1)},
			texts{
				"train": "7", "station": "Bern", "changed_at": "0001-01-01T00:00:00Z", "by": "", "http_url": "",
				"ratio": "+Inf", "level": "0", "raw": "", "uuid": "00000000", "tags": "", "extra": "", "any": "", "note": "",
			},
			`{"train":7,"station":"Bern","changed_at":"0001-01-01T00:00:00Z","by":null,"http_url":"","ratio":"+Inf","level":0,` +
				`"raw":null,"uuid":"00000000","tags":null,"extra":null,"any":null,"note":null}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			rec := records(t, tc.v)
			got := make(texts)
			for c, v := range rec.All() {
				got[c.Name] = v.String()
				if v.IsNull() != (v.Bytes() == nil) {
					t.Errorf("%s is null: %t; text %q", c.Name, v.IsNull(), v.Bytes())
				}
			}
			if diff := cmp.Diff(tc.text, got); diff != "" {
				t.Errorf("texts (-want +got):\n%s", diff)
			}
			var a, b any
			if err := json.Unmarshal(rec.AppendJSON(nil), &a); err != nil {
				t.Fatalf("%s is not JSON: %v", rec.AppendJSON(nil), err)
			}
			if err := json.Unmarshal([]byte(tc.json), &b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, a); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScanIntoOtherTypes(t *testing.T) {
	rec := records(t, full())
	var (
		i8   int8
		u64  uint64
		f32  float32
		text string
		ptr  *string
		nint sql.NullInt64
		any_ any
		raw  []byte
	)
	for column, tc := range map[string]struct {
		dst, want any
	}{
		"train": {&i8, int8(7)}, "station": {&raw, []byte("Bern")}, "ratio": {&f32, float32(0.5)},
		"level": {&u64, uint64(3)}, "any": {&text, "5"}, "note": {&ptr, "n"}, "by": {&any_, "Ada"},
	} {
		if err := rec.Get(column).Scan(tc.dst); err != nil {
			t.Errorf("Scan of %s into %T = %v", column, tc.dst, err)
		}
	}
	if i8 != 7 || string(raw) != "Bern" || f32 != 0.5 || u64 != 3 || text != "5" || ptr == nil || *ptr != "n" || any_ != "Ada" {
		t.Errorf("scanned %d %q %v %d %q %v %v", i8, raw, f32, u64, text, ptr, any_)
	}
	if err := rec.Get("level").Scan(&nint); err != nil || nint != (sql.NullInt64{Int64: 3, Valid: true}) {
		t.Errorf("Scan into sql.NullInt64 = %v, %v; want 3", nint, err)
	}
	empty := records(t, everything{Ratio: 1e300, Level: -1})
	if err := empty.Get("by").Scan(&ptr); err != nil || ptr != nil {
		t.Errorf("Scan of null into *string = %v, %v; want nil", ptr, err)
	}
	for column, tc := range map[string]struct {
		dst  any
		want string
	}{
		"by":    {&text, "a null *string does not fit a string"},
		"level": {&u64, "-1 does not fit a uint64"},
		"ratio": {&f32, "does not fit a float32"},
		"uuid":  {&i8, "a [4]uint8 does not fit a int8"},
		"train": {i8, "want a non-nil pointer"},
	} {
		if err := empty.Get(column).Scan(tc.dst); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Scan of %s into %T = %v, want an error with %q", column, tc.dst, err, tc.want)
		}
	}
}

func TestValuesThatAreNotStructs(t *testing.T) {
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	if got, want := string(records(t, day).AppendJSON(nil)), `{"train":7,"station":"Bern","value":"2026-01-02T00:00:00Z"}`; got != want {
		t.Errorf("a time as value = %s, want %s", got, want)
	}
	if got, want := string(records(t, &route{1, "x"}).AppendJSON(nil)), `{"train":7,"station":"Bern","value":{"Train":1,"Stop":"x"}}`; got != want {
		t.Errorf("a pointer as value = %s, want %s", got, want)
	}
	if got, want := string(records(t, func() {}).AppendJSON(nil)), `{"train":7,"station":"Bern","value":null}`; got != want {
		t.Errorf("a function as value = %s, want %s", got, want)
	}
}
