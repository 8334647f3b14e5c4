package listeners_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

func TestColumnsHaveThreeStates(t *testing.T) {
	r := seat(1, unsent, nil, "")
	for column, want := range map[string]struct {
		state listeners.State
		text  string
		null  bool
	}{
		"id":      {listeners.Present, "1", false},
		"seat":    {listeners.Unchanged, "", false},
		"price":   {listeners.Null, "", true},
		"note":    {listeners.Present, "", false},
		"unknown": {listeners.Unchanged, "", false},
		"ID":      {listeners.Unchanged, "", false},
	} {
		v := r.Get(column)
		if v.State() != want.state || v.String() != want.text || v.IsNull() != want.null {
			t.Errorf("Get(%q) is %s, %q, null %t; want %s, %q, null %t", column, v.State(), v, v.IsNull(), want.state, want.text, want.null)
		}
		if has := v.Bytes() != nil; has != (want.state == listeners.Present) {
			t.Errorf("Get(%q).Bytes() = %q in state %s", column, v.Bytes(), v.State())
		}
	}
	if got := r.At(0).String(); got != "1" {
		t.Errorf("At(0) = %q, want 1", got)
	}
}

func TestAbsentRecord(t *testing.T) {
	var r listeners.Record
	if r.Exists() || r.Schema() != nil || r.Unchanged() != nil {
		t.Errorf("the zero Record exists %t, has schema %v and unchanged columns %q", r.Exists(), r.Schema(), r.Unchanged())
	}
	if v := r.Get("id"); v.State() != listeners.Unchanged || v.Bytes() != nil || v.Scan(nil) != nil {
		t.Errorf("Get of an absent record is %s, %q", v.State(), v)
	}
	if got := string(r.AppendJSON([]byte("x"))); got != "xnull" {
		t.Errorf("AppendJSON = %q, want null", got)
	}
	for range r.All() {
		t.Error("an absent record has columns")
	}
	if r := seat(1, "A", 1, nil); !r.Exists() || r.Schema() != seats {
		t.Errorf("a record exists %t, schema %v", r.Exists(), r.Schema())
	}
}

func TestRecordJSONOmitsUnchanged(t *testing.T) {
	for name, tc := range map[string]struct {
		r    listeners.Record
		want string
	}{
		"whole":           {seat(1, "A \"1\"", 10, nil), `{"id":1,"seat":"A \"1\"","price":10,"note":null}`},
		"first unchanged": {seat(1, unsent, 10, "x"), `{"id":1,"price":10,"note":"x"}`},
		"only the key":    {seat(1, unsent, unsent, unsent), `{"id":1}`},
		"no column":       {record(seats, unsent, unsent, unsent, unsent), `{}`},
		"absent":          {listeners.Record{}, `null`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(map[string]any{"r": tc.r})
			if want := `{"r":` + tc.want + `}`; string(got) != want || err != nil {
				t.Errorf("Marshal = %s, %v, want %s", got, err, want)
			}
		})
	}
}

func TestValueJSON(t *testing.T) {
	r := seat(1, unsent, nil, "x")
	for column, want := range map[string]string{"id": "1", "price": "null", "note": `"x"`} {
		if got, err := json.Marshal(r.Get(column)); string(got) != want || err != nil {
			t.Errorf("Marshal(%s) = %s, %v, want %s", column, got, err, want)
		}
	}
	for _, column := range []string{"seat", "unknown"} {
		if got, err := json.Marshal(r.Get(column)); err == nil {
			t.Errorf("Marshal(%s) = %s, want an error: it is unchanged", column, got)
		}
	}
}

func TestAllYieldsEveryColumnInOrder(t *testing.T) {
	r := seat(1, unsent, nil, "x")
	var names []string
	var states []listeners.State
	for c, v := range r.All() {
		names, states = append(names, c.Name), append(states, v.State())
	}
	if want := []string{"id", "seat", "price", "note"}; !slices.Equal(names, want) {
		t.Errorf("All yields %q, want %q", names, want)
	}
	want := []listeners.State{listeners.Present, listeners.Unchanged, listeners.Null, listeners.Present}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	for c := range r.All() {
		if c.Name != "id" {
			t.Fatalf("All goes on after a break, to %s", c.Name)
		}
		break
	}
	if got := r.Unchanged(); !slices.Equal(got, []string{"seat"}) {
		t.Errorf("Unchanged() = %q, want seat", got)
	}
	if got := seat(1, "A", 1, nil).Unchanged(); got != nil {
		t.Errorf("Unchanged() of a whole record = %q, want nil", got)
	}
}

func TestValueScan(t *testing.T) {
	r := seat(1, unsent, nil, "x")
	id, name, price := 0, "as it was", new(int)
	if err := r.Get("id").Scan(&id); id != 1 || err != nil {
		t.Errorf("Scan(id) = %d, %v, want 1", id, err)
	}
	if err := r.Get("seat").Scan(&name); name != "as it was" || err != nil {
		t.Errorf("Scan of an unchanged column = %q, %v, want it left alone", name, err)
	}
	if err := r.Get("price").Scan(&price); price != nil || err != nil {
		t.Errorf("Scan of NULL = %v, %v, want nil", price, err)
	}
	if err := r.Get("price").Scan(&id); err == nil {
		t.Errorf("Scan of NULL into an int = %d, want an error", id)
	}
}

func TestSchema(t *testing.T) {
	if got := seats.Collection(); got != "public.seats" {
		t.Errorf("Collection() = %q", got)
	}
	if got := prices.Collection(); got != "prices" {
		t.Errorf("Collection() without a namespace = %q", got)
	}
	if got := keySchema(2).Key(); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("Key() = %v, want 1, 3", got)
	}
	if seats.Index("price") != 2 || seats.Index("Price") != -1 || seats.Index("") != -1 {
		t.Errorf("Index finds price at %d, Price at %d, nothing at %d", seats.Index("price"), seats.Index("Price"), seats.Index(""))
	}
}
