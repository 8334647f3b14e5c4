package pgwrite_test

import (
	"database/sql"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/pgtest"
)

type mood string

type everything struct {
	ID     [16]byte // the key, once more
	Small  int16
	Big    *int64
	Exact  string
	Real   float64
	Flag   bool
	Raw    []byte
	When   time.Time
	Doc    json.RawMessage
	Tags   []string
	Feels  mood
	Note   sql.NullString
	Serial int64 `db:"serial"`
}

func TestRowsOfManyTypesComeBackAsTheyWere(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TYPE mood AS ENUM ('sad', 'glad')", `CREATE TABLE everything (
		id uuid PRIMARY KEY, small smallint, big bigint, exact numeric, "real" float8, flag bool, raw bytea,
		"when" timestamptz, doc jsonb, tags text[], feels mood, note text, serial bigint GENERATED ALWAYS AS IDENTITY)`)
	src, err := cdc.New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := grid.New("g", nil)
	region, err := grid.Mirror[[16]byte, everything](g, "everything", src.Table("public.everything"), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, src, g)
	s := &shop{url: url}
	table := bind(t, s.writer(t, nil), region, "public.everything")
	big, key := int64(1)<<60, [16]byte{1, 2, 15: 16}
	want := everything{
		ID: key, Small: -3, Big: &big, Exact: "12345678901234567890.123456789", Real: 0.1, Flag: true, Raw: []byte{0, 1, 0xff},
		When: time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC), Doc: json.RawMessage(`{"a": [1, null]}`), Tags: []string{"x", "y z"},
		Feels: "glad", Note: sql.NullString{String: "n", Valid: true}, Serial: 1,
	}
	check := func(what string) {
		t.Helper()
		got, _ := region.Get(key)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", what, diff)
		}
	}
	if _, err := table.Insert(deadline(t), key, want); err != nil {
		t.Fatalf("Insert() = %v, want nil", err)
	}
	check("Insert")
	_, err = table.Update(deadline(t), key, func(v everything) (everything, error) {
		if diff := cmp.Diff(want, v, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
			t.Errorf("Update() reads (-want +got):\n%s", diff)
		}
		v.Big, v.Note, v.Feels = nil, sql.NullString{}, "sad"
		return v, nil
	})
	if err != nil {
		t.Fatalf("Update() = %v, want nil", err)
	}
	want.Big, want.Note, want.Feels = nil, sql.NullString{}, "sad"
	check("Update")
}

func TestATableOfKeysAlone(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE likes (who bigint, what text, PRIMARY KEY (what, who))")
	src, err := cdc.New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	type like struct {
		Who  int64
		What string
	}
	g := grid.New("g", nil)
	region, err := grid.Mirror[like, like](g, "likes", src.Table("public.likes"), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, src, g)
	table := bind(t, (&shop{url: url}).writer(t, nil), region, "public.likes")
	k := like{7, "go"}
	for range 2 { // the second changes nothing, and comes back all the same
		if _, err := table.Put(deadline(t), k, like{}); err != nil {
			t.Fatalf("Put() = %v, want nil", err)
		}
	}
	if _, err := table.Update(deadline(t), k, func(v like) (like, error) { return v, nil }); err != nil {
		t.Fatalf("Update() = %v, want nil", err)
	}
	if v, ok := region.Get(k); !ok || v != k {
		t.Errorf("Get() = %v, %t; want the row", v, ok)
	}
	if _, existed, err := table.Delete(deadline(t), k); err != nil || !existed || region.Len() != 0 {
		t.Errorf("Delete() = %t, %v and Len() = %d; want it gone", existed, err, region.Len())
	}
}
