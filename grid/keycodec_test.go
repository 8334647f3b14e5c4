package grid_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A secret has neither exported fields nor a text.
type secret struct{ a, b byte }

type spot struct {
	Row  int
	Name string
}

type visit struct {
	At    time.Time
	Spot  spot
	From  netip.Addr
	Codes [2]secret
}

func keyed(t *testing.T) *grid.Grid {
	t.Helper()
	return grid.New("tickets", &grid.Options{Keys: []grid.KeyCodec{
		grid.NewKeyCodec(func(dst []byte, a netip.Addr) []byte { return append(dst, a.AsSlice()...) }, nil),
		grid.NewKeyCodec(func(dst []byte, s secret) []byte { return append(dst, s.a, s.b) }, func(raw []byte) (secret, error) {
			if len(raw) != 2 {
				return secret{}, errors.New("want two bytes")
			}
			return secret{raw[0], raw[1]}, nil
		}),
	}})
}

// What is not a string or a number within a key has a text that no other key
// has, and one column.
func TestKeysOfAllKindsHaveATextOfTheirOwn(t *testing.T) {
	r := open[visit, int](t, keyed(t), "visits", nil)
	var events []listeners.Event // the subscription's until Wait returns
	sub := subscribe(t, r, listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		events = append(events, b.Events...)
		return nil
	}), nil)
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.FixedZone("CEST", 7200))
	addr := netip.MustParseAddr("10.0.0.1")
	keys := []visit{
		{noon, spot{1, "a"}, addr, [2]secret{{1, 2}, {3, 0}}},
		{noon, spot{1, "a"}, addr, [2]secret{{1, 2}, {3, 1}}},
		{noon, spot{1, "\xff"}, addr, [2]secret{}},
		{noon, spot{1, "\xfe"}, addr, [2]secret{}},
		{time.Unix(1<<40, 0), spot{}, addr, [2]secret{}},
		{time.Unix(1<<40, 1), spot{}, addr, [2]secret{}},
	}
	var last listeners.Position
	for i, k := range keys {
		last = put(t, r, k, i)
	}
	if err := sub.Wait(deadline(t), last); err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]bool)
	for i := range events {
		k := events[i].Key()
		texts[k.String()] = true
		for c := range k.Len() {
			if _, v := k.At(c); v.State() != listeners.Present {
				t.Errorf("column %d of the key %v is %s, want present", c, keys[i], v.State())
			}
		}
	}
	if len(texts) != len(keys) {
		t.Errorf("%d keys have %d texts, %v", len(keys), len(texts), texts)
	}
	first := events[0].Key()
	if want := `2026-07-01T10:00:00Z/{"Row":1,"Name":"a"}/10.0.0.1/\x010200010300ff0001`; first.String() != want {
		t.Errorf("the key's text is %s, want %s", first, want)
	}
	want := `{"at":"2026-07-01T10:00:00Z","spot":{"Row":1,"Name":"a"},"from":"10.0.0.1","codes":"\\x010200010300ff0001"}`
	if diff := cmp.Diff(want, string(first.AppendJSON(nil))); diff != "" {
		t.Errorf("the key's JSON (-want +got):\n%s", diff)
	}
	var codes string
	if err := events[0].After.Get("codes").Scan(&codes); err != nil || codes != `\x010200010300ff0001` {
		t.Errorf("Scan(codes) = %q, %v; want the text", codes, err)
	}
}

// Times are one key if they are one instant, wherever that is.
func TestTimesAreKeysByTheirInstant(t *testing.T) {
	r := open[time.Time, string](t, newGrid(t), "r", nil)
	noon := time.Now() // with a monotonic reading
	east := noon.Round(0).In(time.FixedZone("east", 3600))
	put(t, r, noon, "first")
	put(t, r, east, "second")
	put(t, r, noon.Add(1), "later")
	put(t, r, time.Time{}, "zero")
	if v, ok := r.Get(noon.UTC()); v != "second" || !ok || r.Len() != 3 {
		t.Errorf("Get(%v) = %q, %t of %d; want the second of 3", noon, v, ok, r.Len())
	}
	want := []time.Time{{}, noon.Round(0).UTC(), noon.Add(1).Round(0).UTC()}
	if got := keysOf(r.All()); !slices.Equal(got, want) {
		t.Errorf("All() yields the keys %v, want %v", got, want)
	}
	byHour := newIndex(t, r, "hour", func(at time.Time, _ string) (time.Time, bool) { return at.Truncate(time.Hour), !at.IsZero() }, nil)
	if n := len(keysOf(byHour.Range(noon.Add(-2*time.Hour), noon.Add(time.Minute)))); n < 2 && noon.Minute() < 59 {
		t.Errorf("the index has %d entries of this hour, want 2", n)
	}
	m := mirror[time.Time](t, r, &grid.MirrorOptions[string]{})
	ready(t, m)
	if got := keysOf(m.All()); !slices.Equal(got, want) {
		t.Errorf("the mirror has the keys %v, want %v", got, want)
	}
}

// A mirror reads keys of all kinds from a region, and from their text.
func TestMirrorsReadKeysOfUsersCodecs(t *testing.T) {
	g := keyed(t)
	r := open[secret, string](t, g, "r", nil)
	for _, k := range []secret{{2, 0}, {0, 2}, {0, 0}, {2, 1}} {
		put(t, r, k, string([]byte{k.a, k.b}))
	}
	want := []secret{{0, 0}, {0, 2}, {2, 0}, {2, 1}}
	if got := keysOf(r.All()); !slices.Equal(got, want) {
		t.Errorf("All() yields the keys %v, want %v", got, want)
	}
	m, err := grid.Mirror[secret, string](g, "m", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, m)
	if got := keysOf(m.All()); !slices.Equal(got, want) {
		t.Errorf("the mirror has the keys %v, want %v", got, want)
	}

	src := newTable("secrets", "*key", "value")
	src.state = []string{`\x0201|x`, `\x0002|y`}
	remote, err := grid.Mirror[secret, string](g, "remote", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, remote)
	if got := keysOf(remote.All()); !slices.Equal(got, []secret{{0, 2}, {2, 1}}) {
		t.Errorf("the mirror of texts has the keys %v, want the two of its source", got)
	}
	src.commit(src.event(listeners.Create, "", "", `\x02|z`))
	<-remote.Done()
	if err := remote.Err(); err == nil || !strings.Contains(err.Error(), "want two bytes") {
		t.Errorf("after a key that cannot be, Err() = %v, want that of the codec", err)
	}
	if err := g.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
}

// What the codec of one type costs must not be paid for others.
func TestLookUpsDoNotAllocate(t *testing.T) {
	type key struct {
		At   time.Time
		Spot spot
	}
	g := newGrid(t)
	r, s := open[key, int](t, g, "r", nil), open[string, int](t, g, "s", nil)
	k := key{time.Now(), spot{1, "a"}}
	put(t, r, k, 1)
	put(t, s, "abc", 1)
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := r.Get(k); !ok {
			t.Error("Get() found nothing")
		}
		if _, ok := s.Get("abc"); !ok {
			t.Error("Get() found nothing")
		}
	}); n != 0 {
		t.Errorf("Get() makes %v allocations, want none", n)
	}
}
