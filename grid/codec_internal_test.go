package grid

import (
	"bytes"
	"cmp"
	"database/sql"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type (
	seatID string
	uuid   [16]byte
	owned  struct {
		Owner uuid
		Name  string
		ID    uuid
	}
	place3 struct{ Train, Coach, Seat string }
	mixed  struct {
		Day int32
		embedded
		Open bool
		ID   [4]byte
	}
	embedded struct {
		Name  string
		Shard int8
	}
)

func enc[K comparable](t interface{ Fatalf(string, ...any) }, k K) []byte {
	c, err := newCodec(reflect.TypeFor[K](), keyCodecs{})
	if err != nil {
		t.Fatalf("newCodec(%T) = %v, want no error", k, err)
	}
	return encodeKey(c, nil, &k)
}

// Checks that encodings sort as compare says, and that none is a prefix of another.
func checkPair[K comparable](t *rapid.T, a, b K, want int) {
	x, y := enc(t, a), enc(t, b)
	if got := bytes.Compare(x, y); got != want {
		t.Fatalf("encodings of %#v and %#v compare as %d (%x, %x), want %d", a, b, got, x, y, want)
	}
	if a != b && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
		t.Fatalf("of the encodings of %#v and %#v, %x and %x, one is a prefix of the other", a, b, x, y)
	}
}

func pairs[K interface {
	comparable
	cmp.Ordered
}](g *rapid.Generator[K]) func(*testing.T) {
	return func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a, b := g.Draw(t, "a"), g.Draw(t, "b")
			checkPair(t, a, b, cmp.Compare(a, b))
		})
	}
}

// Few different bytes, so that equal beginnings, NULs and 0xff are frequent.
func nasty() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 0, 5).Draw(t, "bytes"))
	})
}

func TestKeysSortByTheirValue(t *testing.T) {
	t.Run("string", pairs(nasty()))
	t.Run("named string", pairs(rapid.Map(nasty(), func(s string) seatID { return seatID(s) })))
	t.Run("int", pairs(rapid.Int()))
	t.Run("int8", pairs(rapid.Int8()))
	t.Run("int16", pairs(rapid.Int16()))
	t.Run("int32", pairs(rapid.Int32()))
	t.Run("int64", pairs(rapid.Int64()))
	t.Run("uint", pairs(rapid.Uint()))
	t.Run("uint8", pairs(rapid.Uint8()))
	t.Run("uint16", pairs(rapid.Uint16()))
	t.Run("uint32", pairs(rapid.Uint32()))
	t.Run("uint64", pairs(rapid.Uint64()))
	t.Run("three strings", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			draw := func(name string) place3 {
				return place3{nasty().Draw(t, name+".train"), nasty().Draw(t, name+".coach"), nasty().Draw(t, name+".seat")}
			}
			a, b := draw("a"), draw("b")
			checkPair(t, a, b, cmp.Or(strings.Compare(a.Train, b.Train), strings.Compare(a.Coach, b.Coach), strings.Compare(a.Seat, b.Seat)))
		})
	})
	id := rapid.Custom(func(t *rapid.T) uuid {
		return uuid(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 16, 16).Draw(t, "id"))
	})
	t.Run("uuid", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a, b := id.Draw(t, "a"), id.Draw(t, "b")
			checkPair(t, a, b, bytes.Compare(a[:], b[:]))
		})
	})
	t.Run("struct of uuids", func(t *testing.T) {
		few := rapid.SampledFrom([]uuid{{}, {15: 1}, {0: 1}, {0: 0xff}})
		rapid.Check(t, func(t *rapid.T) {
			draw := func(name string) owned {
				return owned{few.Draw(t, name+".owner"), nasty().Draw(t, name+".name"), id.Draw(t, name+".id")}
			}
			a, b := draw("a"), draw("b")
			checkPair(t, a, b, cmp.Or(bytes.Compare(a.Owner[:], b.Owner[:]), strings.Compare(a.Name, b.Name), bytes.Compare(a.ID[:], b.ID[:])))
		})
	})
	t.Run("struct of everything", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			draw := func(name string) mixed {
				return mixed{
					Day:      rapid.Int32Range(-2, 2).Draw(t, name+".day"),
					embedded: embedded{Name: nasty().Draw(t, name+".name"), Shard: rapid.Int8().Draw(t, name+".shard")},
					Open:     rapid.Bool().Draw(t, name+".open"),
					ID:       [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name+".id")),
				}
			}
			a, b := draw("a"), draw("b")
			number := func(v bool) int {
				if v {
					return 1
				}
				return 0
			}
			checkPair(t, a, b, cmp.Or(cmp.Compare(a.Day, b.Day), strings.Compare(a.Name, b.Name), cmp.Compare(a.Shard, b.Shard),
				cmp.Compare(number(a.Open), number(b.Open)), bytes.Compare(a.ID[:], b.ID[:])))
		})
	})
}

func TestKeyTypesThatCannotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		typ  reflect.Type
		want string
	}{
		"float":            {reflect.TypeFor[float64](), "float64 cannot be a key: float64 is none of what keys are: strings"},
		"pointer":          {reflect.TypeFor[*string](), "*string cannot be a key"},
		"interface":        {reflect.TypeFor[any](), "cannot be a key"},
		"array of floats":  {reflect.TypeFor[[2]float32](), "[2]float32 cannot be a key: float32 is none"},
		"empty array":      {reflect.TypeFor[[0]int](), "[0]int has no elements"},
		"large array":      {reflect.TypeFor[[40][40]int](), "more than 1024 parts; give it a codec"},
		"unexported field": {reflect.TypeFor[struct{ a int }](), "its field a is not exported"},
		"left out": {reflect.TypeFor[struct {
			A int `db:"-"`
		}](), "its field A is not exported or has the tag"},
		"nested":             {reflect.TypeFor[struct{ A struct{ B *int } }](), "its field A: struct { B *int }, field B: *int is none"},
		"nested, unexported": {reflect.TypeFor[struct{ A struct{ b int } }](), "has the field b, which is not exported"},
		"nested, empty":      {reflect.TypeFor[struct{ A struct{} }](), "has no fields"},
		"null":               {reflect.TypeFor[struct{ A sql.NullInt64 }](), "give it a codec"},
		"twice": {reflect.TypeFor[struct {
			A int
			B int `db:"a"`
		}](), `fields A and B both stand for column "a"`},
		"unknown": {reflect.TypeFor[netip.Addr](), "its field addr is not exported"},
		"empty":   {reflect.TypeFor[struct{}](), "has no fields"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newCodec(tc.typ, keyCodecs{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("newCodec(%s) = %v, want an error with %q", tc.typ, err, tc.want)
			}
		})
	}
}

func TestEncodingAKeyNeedsNoAllocation(t *testing.T) {
	c, err := newCodec(reflect.TypeFor[mixed](), keyCodecs{})
	if err != nil {
		t.Fatal(err)
	}
	k := mixed{Day: 3, embedded: embedded{Name: "x"}}
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { buf = encodeKey(c, buf[:0], &k) }); n != 0 {
		t.Errorf("encodeKey made %v allocations, want 0", n)
	}
}
