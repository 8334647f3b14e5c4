package listeners_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

func TestScanFillsFields(t *testing.T) {
	type priced struct {
		Price int
	}
	type Noted struct {
		priced // an unexported struct with exported fields

		Text string `db:"note"`
	}
	type target struct {
		Noted

		Number  int64  `db:"id"`
		Seat    string // takes the column of its name
		Ignored string `db:"-"`
		Class   int    `db:"class,optional"`
		Other   string // no such column
		hidden  string
	}
	got := target{Ignored: "i", Class: 2, Other: "o", hidden: "h"}
	if err := seat(7, "A1", 20, "window").Scan(&got); err != nil {
		t.Fatal(err)
	}
	want := target{
		Noted:  Noted{priced: priced{20}, Text: "window"},
		Number: 7, Seat: "A1", Ignored: "i", Class: 2, Other: "o", hidden: "h",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{}, Noted{}, priced{})); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
}

func TestScanLeavesUnchangedAlone(t *testing.T) {
	type target struct {
		ID    int
		Seat  string
		Price *int
		Note  sql.NullString
	}
	price := 20
	got := target{1, "A1", &price, sql.NullString{String: "window", Valid: true}}
	if err := seat(2, unsent, nil, unsent).Scan(&got); err != nil {
		t.Fatal(err)
	}
	want := target{2, "A1", nil, sql.NullString{String: "window", Valid: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Scan onto the old value (-want +got):\n%s", diff)
	}
	if err := seat(2, unsent, 30, nil).Scan(&got); err != nil {
		t.Fatal(err)
	}
	price = 30
	want = target{2, "A1", &price, sql.NullString{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Scan of a NULL into a Scanner (-want +got):\n%s", diff)
	}
}

func TestScanSnakeCase(t *testing.T) {
	s := listeners.NewSchema("shop", "", "names", []listeners.Column{
		{Name: "seat_no"}, {Name: "http_port"}, {Name: "id"}, {Name: "train_id"}, {Name: "a1_b"}, {Name: "ärger_maß"}, {Name: "x"},
	})
	type target struct {
		SeatNo, HTTPPort, ID, TrainID, A1B, ÄrgerMaß, X int
	}
	var got target
	if err := record(s, 1, 2, 3, 4, 5, 6, 7).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := (target{1, 2, 3, 4, 5, 6, 7}); got != want {
		t.Errorf("Scan = %+v, want %+v", got, want)
	}
}

func TestScanErrorsNameTheColumnTheFieldAndTheRemedy(t *testing.T) {
	for name, tc := range map[string]struct {
		r    listeners.Record
		dst  any
		want string
	}{
		"missing column": {
			seat(1, "A", 1, nil), &struct {
				Class int `db:"class"`
			}{},
			`struct { Class int "db:\"class\"" }.Class wants column "class", which public.seats does not have (it has id, seat, price, note); rename it or add ",optional" to the tag`,
		},
		"unexported": {
			seat(1, "A", 1, nil), &struct {
				seat string `db:"seat"`
			}{},
			`.seat has a db tag but is not exported`,
		},
		"unknown option": {
			seat(1, "A", 1, nil), &struct {
				Seat string `db:"seat,omitempty"`
			}{},
			`.Seat: unknown option "omitempty" in its db tag; only "optional" is known`,
		},
		"in an embedded struct": {seat(1, "A", 1, nil), &struct{ Embedded }{}, `listeners_test.Embedded.Class wants column "class"`},
		"null":                  {seat(1, nil, 1, nil), new(struct{ Seat string }), `column public.seats.seat into struct { Seat string }.Seat: column is NULL, use *string`},
		"wrong type":            {seat(1, "A", 1, nil), new(struct{ Seat int }), `column public.seats.seat into struct { Seat int }.Seat: string does not fit int`},
		"absent":                {listeners.Record{}, new(struct{}), `scan of an absent record into *struct {}`},
		"not a pointer":         {seat(1, "A", 1, nil), struct{}{}, `scan into struct {}: want a non-nil pointer to a struct`},
		"nil":                   {seat(1, "A", 1, nil), nil, `scan into <nil>: want a non-nil pointer to a struct`},
		"nil pointer":           {seat(1, "A", 1, nil), (*struct{})(nil), `scan into *struct {}: want a non-nil pointer to a struct`},
		"not a struct":          {seat(1, "A", 1, nil), new(int), `scan into *int: want a non-nil pointer to a struct`},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time from the plan's cache
				if err := tc.r.Scan(tc.dst); err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Scan(%T) = %v\nwant an error with %s", tc.dst, err, tc.want)
				}
			}
		})
	}
}

// Embedded has a column that no schema of these tests has.
type Embedded struct {
	Class int `db:"class"`
}

func TestScanTakesNoPointerToAnEmbeddedStruct(t *testing.T) {
	got := struct {
		*Embedded

		ID int
	}{}
	if err := seat(1, "A", 1, nil).Scan(&got); err != nil || got.Embedded != nil || got.ID != 1 {
		t.Errorf("Scan = %v, %+v; want it to leave the pointer alone", err, got)
	}
}
