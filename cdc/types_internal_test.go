package cdc

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
)

// pairOf is a composite of texts.
func pairOf(names ...string) *pgvalue.Type {
	fields := make([]pgvalue.Field, len(names))
	for i, name := range names {
		fields[i] = pgvalue.Field{Name: name, Type: pgvalue.Of(25)}
	}
	return pgvalue.Composite(20000, "public.pair", fields)
}

func TestCatalogIsAskedForTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		messages  [][]byte
		altered   []string // the composite's fields from now on
		then      [][]byte
		wantAsked [][]uint32
		want      []string // what the last messages are
	}{
		"not for built-in types": {
			then: [][]byte{msgRelation(1, "a", 'd', "*id", "n:23"), msgInsert(1, "1", "2")},
			want: []string{`100.1 create public.a/1 after {"id":"1","n":2}`},
		},
		"not for tables that nobody wants": {then: [][]byte{msgRelation(1, "other", 'd', "*id", "v:20000"), msgInsert(1, "1", "(a,b)")}},
		"once for all tables": {
			then: [][]byte{
				msgRelation(1, "a", 'd', "*id", "v:20000"), msgRelation(2, "b", 'd', "*id", "v:20000", "w:20000"),
				msgInsert(1, "1", "(a,b)"), msgInsert(2, "1", "(c,)", colNull),
			},
			wantAsked: [][]uint32{{20000}},
			want: []string{
				`100.1 create public.a/1 after {"id":"1","v":{"a":"a","b":"b"}}`,
				`100.2 create public.b/1 after {"id":"1","v":{"a":"c","b":null},"w":null}`,
			},
		},
		"a type that is gone is text": {
			then:      [][]byte{msgRelation(1, "a", 'd', "*id", "v:20001"), msgInsert(1, "1", "(a,b)")},
			wantAsked: [][]uint32{{20001}},
			want:      []string{`100.1 create public.a/1 after {"id":"1","v":"(a,b)"}`},
		},
		"again when a table is described again": {
			messages:  [][]byte{msgRelation(1, "a", 'd', "*id", "v:20000")},
			altered:   []string{"c", "d"},
			then:      [][]byte{msgRelation(1, "a", 'd', "*id", "v:20000"), msgInsert(1, "1", "(a,b)")},
			wantAsked: [][]uint32{{20000}, {20000}},
			want:      []string{`100.1 create public.a/1 after {"id":"1","v":{"c":"a","d":"b"}}`},
		},
		"again when a row does not fit": {
			messages:  [][]byte{msgRelation(1, "a", 'd', "*id", "v:20000")},
			altered:   []string{"a", "b", "c"},
			then:      [][]byte{msgInsert(1, "1", colNull), msgInsert(1, "2", "(a,b,c)"), msgInsert(1, "3", "(d,e,f)")},
			wantAsked: [][]uint32{{20000}, {20000}},
			want: []string{
				`100.1 create public.a/1 after {"id":"1","v":null}`,
				`100.2 create public.a/2 after {"id":"2","v":{"a":"a","b":"b","c":"c"}}`,
				`100.3 create public.a/3 after {"id":"3","v":{"a":"d","b":"e","c":"f"}}`,
			},
		},
		"once for old rows that nobody knows": {
			messages: [][]byte{msgRelation(1, "a", 'd', "*id", "v:20000")},
			then: [][]byte{
				msgInsert(1, "1", "(a)"), msgUpdate(1, 'O', []string{"1", "(a)"}, []string{"1", "(b)"}), msgInsert(1, "2", colNull), msgInsert(1, "3", "(c)"),
				msgInsert(1, "4", "(a,b)"), msgInsert(1, "5", "(a)"),
			},
			wantAsked: [][]uint32{{20000}, {20000}, {20000}},
			want: []string{
				`100.1 create public.a/1 after {"id":"1","v":"(a)"}`,
				`100.2 update public.a/1 before {"id":"1","v":"(a)"} after {"id":"1","v":"(b)"}`,
				`100.3 create public.a/2 after {"id":"2","v":null}`,
				`100.4 create public.a/3 after {"id":"3","v":"(c)"}`,
				`100.5 create public.a/4 after {"id":"4","v":{"a":"a","b":"b"}}`,
				`100.6 create public.a/5 after {"id":"5","v":"(a)"}`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, 1<<20)
			d.described = types{20000: pairOf("a", "b")}
			d.send(msgBegin(100, 1))
			d.send(tc.messages...)
			if tc.altered != nil {
				d.described = types{20000: pairOf(tc.altered...)}
			}
			d.send(tc.then...)
			d.send(msgCommit(100, 110))
			if diff := cmp.Diff(tc.wantAsked, d.asked); diff != "" {
				t.Errorf("OIDs that were asked for (-want +got):\n%s", diff)
			}
			if lines := d.lines(); len(lines) > 0 || tc.want != nil {
				if diff := cmp.Diff(tc.want, lines[1:]); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestRecordsKeepTheTypesTheyWereReadWith(t *testing.T) {
	d := newDecoding(t, 1<<20)
	d.described = types{20000: pairOf("a", "b")}
	d.send(msgBegin(100, 1), msgRelation(1, "a", 'd', "*id", "v:20000"), msgInsert(1, "1", "(a,b)"))
	d.described = types{20000: pairOf("a", "b", "c")}
	d.send(msgInsert(1, "2", "(a,b,c)"), msgCommit(100, 110))
	want := []string{
		"batch first last",
		`100.1 create public.a/1 after {"id":"1","v":{"a":"a","b":"b"}}`,
		`100.2 create public.a/2 after {"id":"2","v":{"a":"a","b":"b","c":"c"}}`,
	}
	if diff := cmp.Diff(want, d.lines()); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

func TestLookUpOfTypesThatFailsMayBeTriedAgain(t *testing.T) {
	relation, insert := msgRelation(1, "a", 'd', "*id", "v:20000"), msgInsert(1, "1", "(a,b,c)")
	for name, fails := range map[string]int{"of a table": 0, "of a row that does not fit": 1} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, 1<<20)
			d.described = types{20000: pairOf("a", "b")}
			d.send(msgBegin(100, 1))
			messages := [][]byte{relation, insert}
			d.send(messages[:fails]...)
			d.typesErr = errors.New("no connection")
			err := d.try(messages[fails:]...)
			if !errors.Is(err, d.typesErr) || !transient(err) {
				t.Errorf("message = %v, want %v, which may be tried again", err, d.typesErr)
			}
			d.typesErr, d.described = nil, types{20000: pairOf("a", "b", "c")}
			d.connect()
			d.send(msgBegin(100, 1), relation, insert, msgCommit(100, 110))
			want := []string{"batch first last", `100.1 create public.a/1 after {"id":"1","v":{"a":"a","b":"b","c":"c"}}`}
			if diff := cmp.Diff(want, d.lines()); diff != "" {
				t.Errorf("batches after another connection (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTypeBuilderStopsAtATypeInsideItself(t *testing.T) {
	b := typeBuilder{built: make(types), described: map[uint32]typeRow{
		20000: {oid: 20000, name: "public.a", composite: true, fieldNames: []string{"b"}, fieldTypes: []uint32{20001}},
		20001: {oid: 20001, name: "public.b", elem: 20000},
	}}
	if got, want := string(b.build(20000).AppendJSON(nil, []byte(`("{""(x)""}")`))), `{"b":["(x)"]}`; got != want {
		t.Errorf("JSON of a type inside itself is %s, want %s", got, want)
	}
}
