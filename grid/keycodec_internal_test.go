package grid

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A rank sorts by a part of itself backwards, and has no text.
type rank struct{ points, player uint32 }

func appendRank(dst []byte, r rank) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, ^r.points), r.player)
}

func parseRank(raw []byte) (rank, error) {
	if len(raw) != 8 {
		return rank{}, errors.New("want 8 bytes")
	}
	return rank{^binary.BigEndian.Uint32(raw), binary.BigEndian.Uint32(raw[4:])}, nil
}

// A label is a string that sorts by its length first; one encoding begins
// another.
type label string

func appendLabel(dst []byte, l label) []byte {
	return append(append(dst, strings.Repeat("\x01", len(l))...), strings.ReplaceAll(string(l), "a", "\x00")...)
}

func ownKeys() keyCodecs {
	return newKeyCodecs([]KeyCodec{
		NewKeyCodec(appendRank, parseRank),
		NewKeyCodec(appendLabel, nil),
		NewKeyCodec(func(dst []byte, a netip.Addr) []byte { return append(dst, a.String()...) }, nil),
	})
}

func checkOwn[K comparable](t *rapid.T, a, b K, want int) {
	c, err := newCodec(reflect.TypeFor[K](), ownKeys())
	if err != nil {
		t.Fatal(err)
	}
	x, y := encodeKey(c, []byte("before"), &a), encodeKey(c, []byte("before"), &b)
	if got := bytes.Compare(x, y); got != want {
		t.Fatalf("encodings of %v and %v compare as %d (%x, %x), want %d", a, b, got, x, y, want)
	}
	if want != 0 && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
		t.Fatalf("of the encodings of %v and %v, %x and %x, one is a prefix of the other", a, b, x, y)
	}
}

func TestTimesAndNestedKeysSortByTheirValue(t *testing.T) {
	zones := []*time.Location{time.UTC, time.FixedZone("east", 3600), time.FixedZone("west", -5*3600)}
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		sec := rapid.OneOf(rapid.Int64Range(-2, 2), rapid.Int64Range(-62135596800, 253402300799), rapid.Int64Range(-1<<40, 1<<40)).Draw(t, "seconds")
		at := time.Unix(sec, rapid.SampledFrom([]int64{0, 1, 999_999_999}).Draw(t, "nanoseconds"))
		return at.In(rapid.SampledFrom(zones).Draw(t, "zone"))
	})
	t.Run("time", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a, b := instant.Draw(t, "a"), instant.Draw(t, "b")
			checkOwn(t, a, b, a.Compare(b))
		})
	})
	t.Run("array of strings", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a, b := [2]string{nasty().Draw(t, "a0"), nasty().Draw(t, "a1")}, [2]string{nasty().Draw(t, "b0"), nasty().Draw(t, "b1")}
			checkOwn(t, a, b, cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])))
		})
	})
	type inner struct {
		At   time.Time
		Name string
	}
	type outer struct {
		Shards [3]int8
		Inner  inner
		ID     int16
	}
	t.Run("nested", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			draw := func(name string) outer {
				var k outer
				for i := range k.Shards {
					k.Shards[i] = rapid.Int8Range(-1, 1).Draw(t, name+".shard")
				}
				k.Inner = inner{instant.Draw(t, name+".at"), nasty().Draw(t, name+".name")}
				k.ID = rapid.Int16().Draw(t, name+".id")
				return k
			}
			a, b := draw("a"), draw("b")
			if rapid.Bool().Draw(t, "near") {
				b.Shards, b.Inner.At = a.Shards, a.Inner.At.UTC()
			}
			checkOwn(t, a, b, cmp.Or(bytes.Compare(signed(a.Shards), signed(b.Shards)), a.Inner.At.Compare(b.Inner.At),
				strings.Compare(a.Inner.Name, b.Inner.Name), cmp.Compare(a.ID, b.ID)))
		})
	})
}

func signed(of [3]int8) []byte {
	return []byte{byte(of[0]) ^ 0x80, byte(of[1]) ^ 0x80, byte(of[2]) ^ 0x80}
}

func TestUsersCodecsSortAsTheySay(t *testing.T) {
	labels := rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune("ab")), 0, 4, -1), func(s string) label { return label(s) })
	ranks := rapid.Custom(func(t *rapid.T) rank {
		return rank{rapid.Uint32().Draw(t, "points"), rapid.Uint32Range(0, 3).Draw(t, "player")}
	})
	t.Run("label", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
			checkOwn(t, a, b, bytes.Compare(appendLabel(nil, a), appendLabel(nil, b)))
		})
	})
	type both struct {
		Label label
		Ranks [2]rank
		Last  bool
	}
	t.Run("within a struct", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			draw := func(name string) both {
				return both{labels.Draw(t, name+".label"), [2]rank{{1, 1}, ranks.Draw(t, name+".rank")}, rapid.Bool().Draw(t, name+".last")}
			}
			a, b := draw("a"), draw("b")
			last := map[bool]int{true: 1}
			checkOwn(t, a, b, cmp.Or(bytes.Compare(appendLabel(nil, a.Label), appendLabel(nil, b.Label)),
				cmp.Compare(b.Ranks[1].points, a.Ranks[1].points), cmp.Compare(a.Ranks[1].player, b.Ranks[1].player), cmp.Compare(last[a.Last], last[b.Last])))
		})
	})
}

func TestCodecsThatCannotBe(t *testing.T) {
	good := NewKeyCodec(appendRank, nil)
	for name, tc := range map[string]struct {
		codecs []KeyCodec
		want   string
	}{
		"zero":        {[]KeyCodec{good, {}}, "zero KeyCodec"},
		"no function": {[]KeyCodec{NewKeyCodec[rank](nil, parseRank)}, "codec of grid.rank without a function"},
		"twice":       {[]KeyCodec{good, good}, "two codecs of grid.rank"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open[int, int](New("g", &Options{Keys: tc.codecs}), "r", nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open() = %v, want an error with %q", err, tc.want)
			}
		})
	}
}
