package pgoutput_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// parse calls the parser of a message, as its type byte says.
func parse(msg []byte) (any, error) {
	if len(msg) == 0 {
		return nil, pgoutput.ErrTruncated
	}
	switch msg[0] {
	case pgoutput.TypeBegin:
		return pgoutput.ParseBegin(msg)
	case pgoutput.TypeCommit:
		return pgoutput.ParseCommit(msg)
	case pgoutput.TypeRelation:
		return pgoutput.ParseRelation(msg)
	case pgoutput.TypeTruncate:
		return pgoutput.ParseTruncate(msg)
	case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
		row, _, err := pgoutput.ParseRow(msg, nil)
		return row, err
	}
	return nil, fmt.Errorf("no parser for %q", msg[0])
}

// messages are one valid message of each form, byte by byte.
var messages = map[string]struct {
	bytes string
	want  any
}{
	"begin": {
		bytes: "B" + "\x00\x00\x00\x16\xb3\x74\xd8\x48" + "\x00\x02\xeb\xd7\xda\x01\xe2\x40" + "\x00\x00\x02\xf1",
		want: pgoutput.Begin{
			CommitLSN: 0x16_B374D848, XID: 753,
			CommitTime: time.Date(2026, time.January, 20, 22, 11, 1, 473856000, time.UTC),
		},
	},
	"commit": {
		bytes: "C" + "\x00" + "\x00\x00\x00\x16\xb3\x74\xd8\x48" + "\x00\x00\x00\x16\xb3\x74\xd8\x78" + "\xff\xff\xff\xff\xff\xff\xff\xff",
		want: pgoutput.Commit{
			CommitLSN: 0x16_B374D848, EndLSN: 0x16_B374D878,
			CommitTime: time.Date(1999, time.December, 31, 23, 59, 59, 999999000, time.UTC),
		},
	},
	"relation": {
		bytes: "R" + "\x00\x00\x40\x01" + "public\x00" + "seats\x00" + "d" + "\x00\x03" +
			"\x01" + "id\x00" + "\x00\x00\x00\x17" + "\xff\xff\xff\xff" +
			"\x00" + "prix \u20ac\x00" + "\x00\x00\x06\xa4" + "\x00\x0a\x00\x06" +
			"\x00" + "\x00" + "\xff\xff\xff\xfe" + "\x80\x00\x00\x00",
		want: pgoutput.Relation{
			ID: 16385, Namespace: "public", Name: "seats", Identity: 'd',
			Columns: []pgoutput.Column{
				{Key: true, Name: "id", TypeID: 23, Modifier: -1},
				{Name: "prix \u20ac", TypeID: 1700, Modifier: 655366},
				{Name: "", TypeID: 4294967294, Modifier: -2147483648},
			},
		},
	},
	"relation of pg_catalog without columns": {
		bytes: "R" + "\xff\xff\xff\xff" + "\x00" + "t\x00" + "n" + "\x00\x00",
		want:  pgoutput.Relation{ID: 4294967295, Name: "t", Identity: 'n'},
	},
	"truncate": {
		bytes: "T" + "\x00\x00\x00\x01" + "\x00" + "\x00\x00\x40\x01",
		want:  pgoutput.Truncate{Relations: []uint32{16385}},
	},
	"truncate cascade": {
		bytes: "T" + "\x00\x00\x00\x02" + "\x01" + "\x00\x00\x40\x01" + "\xff\xff\xff\xff",
		want:  pgoutput.Truncate{Cascade: true, Relations: []uint32{16385, 4294967295}},
	},
	"truncate restart identity of nothing": {
		bytes: "T" + "\x00\x00\x00\x00" + "\x02",
		want:  pgoutput.Truncate{RestartIdentity: true, Relations: []uint32{}},
	},
	"insert": {
		bytes: "I" + "\x00\x00\x40\x01" + "N" + "\x00\x04" + "t\x00\x00\x00\x03abc" + "n" + "t\x00\x00\x00\x00" + "u",
		want:  pgoutput.Row{Relation: 16385, New: []uint32{9, pgoutput.Null, 18, pgoutput.Unchanged}},
	},
	"insert without columns": {
		bytes: "I" + "\x00\x00\x40\x01" + "N" + "\x00\x00",
		want:  pgoutput.Row{Relation: 16385, New: []uint32{}},
	},
	"update without an old row": {
		bytes: "U" + "\x00\x00\x40\x01" + "N" + "\x00\x02" + "t\x00\x00\x00\x011" + "u",
		want:  pgoutput.Row{Relation: 16385, New: []uint32{9, pgoutput.Unchanged}},
	},
	"update with an old key": {
		bytes: "U" + "\x00\x00\x40\x01" + "K" + "\x00\x02" + "t\x00\x00\x00\x011" + "n" + "N" + "\x00\x02" + "t\x00\x00\x00\x0212" + "u",
		want:  pgoutput.Row{Relation: 16385, OldIsKey: true, Old: []uint32{9, pgoutput.Null}, New: []uint32{19, pgoutput.Unchanged}},
	},
	"update with an old row": {
		bytes: "U" + "\x00\x00\x40\x01" + "O" + "\x00\x02" + "t\x00\x00\x00\x011" + "t\x00\x00\x00\x01x" + "N" + "\x00\x02" + "t\x00\x00\x00\x0212" + "n",
		want:  pgoutput.Row{Relation: 16385, Old: []uint32{9, 15}, New: []uint32{24, pgoutput.Null}},
	},
	"update without columns": {
		bytes: "U" + "\x00\x00\x40\x01" + "O" + "\x00\x00" + "N" + "\x00\x00",
		want:  pgoutput.Row{Relation: 16385, Old: []uint32{}, New: []uint32{}},
	},
	"delete with an old key": {
		bytes: "D" + "\x00\x00\x40\x01" + "K" + "\x00\x02" + "t\x00\x00\x00\x011" + "n",
		want:  pgoutput.Row{Relation: 16385, OldIsKey: true, Old: []uint32{9, pgoutput.Null}},
	},
	"delete with an old row": {
		bytes: "D" + "\x00\x00\x40\x01" + "O" + "\x00\x01" + "t\x00\x00\x00\x011",
		want:  pgoutput.Row{Relation: 16385, Old: []uint32{9}},
	},
	"delete without columns": {
		bytes: "D" + "\x00\x00\x40\x01" + "O" + "\x00\x00",
		want:  pgoutput.Row{Relation: 16385, Old: []uint32{}},
	},
}

func TestParse(t *testing.T) {
	for name, tc := range messages {
		t.Run(name, func(t *testing.T) {
			got, err := parse([]byte(tc.bytes))
			if err != nil {
				t.Fatalf("parse(%q) = %v", tc.bytes, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("parse(%q) (-want +got):\n%s", tc.bytes, diff)
			}
		})
	}
}

func TestEveryPrefixIsAnError(t *testing.T) {
	for name, tc := range messages {
		t.Run(name, func(t *testing.T) {
			for n := range len(tc.bytes) {
				// A slice without spare capacity: reading on is a panic.
				msg := []byte(tc.bytes)[:n:n]
				if got, err := parse(msg); err == nil {
					t.Errorf("parse(%q), %d of %d bytes, = %+v; want an error", msg, n, len(tc.bytes), got)
				}
			}
		})
	}
}

func TestTrailingBytesAreAnError(t *testing.T) {
	for name, tc := range messages {
		t.Run(name, func(t *testing.T) {
			for _, trailer := range []string{"\x00", "N", "tttttttt"} {
				if got, err := parse([]byte(tc.bytes + trailer)); err == nil {
					t.Errorf("parse(%q + %q) = %+v; want an error", tc.bytes, trailer, got)
				}
			}
		})
	}
}

func TestAnEmptyMessageIsAnError(t *testing.T) {
	parsers := map[string]func([]byte) error{
		"ParseBegin":    func(msg []byte) error { _, err := pgoutput.ParseBegin(msg); return err },
		"ParseCommit":   func(msg []byte) error { _, err := pgoutput.ParseCommit(msg); return err },
		"ParseRelation": func(msg []byte) error { _, err := pgoutput.ParseRelation(msg); return err },
		"ParseTruncate": func(msg []byte) error { _, err := pgoutput.ParseTruncate(msg); return err },
		"ParseRow":      func(msg []byte) error { _, _, err := pgoutput.ParseRow(msg, nil); return err },
	}
	for name, parser := range parsers {
		if err := parser(nil); err == nil {
			t.Errorf("%s(nil) succeeds, want an error", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const rel = "\x00\x00\x40\x01"
	for name, msg := range map[string]string{
		"insert with an old key":            "I" + rel + "K\x00\x00N\x00\x00",
		"insert with an old row":            "I" + rel + "O\x00\x00N\x00\x00",
		"insert of an unknown tuple":        "I" + rel + "X\x00\x00",
		"update with an unknown old tuple":  "U" + rel + "X\x00\x00N\x00\x00",
		"update with two old tuples":        "U" + rel + "K\x00\x00O\x00\x00",
		"update with an old tuple only":     "U" + rel + "O\x00\x00",
		"update with two new tuples":        "U" + rel + "N\x00\x00N\x00\x00",
		"delete with a new tuple":           "D" + rel + "N\x00\x00",
		"delete with an old and new tuple":  "D" + rel + "O\x00\x00N\x00\x00",
		"unknown column":                    "I" + rel + "N\x00\x01x",
		"binary column":                     "I" + rel + "N\x00\x01b\x00\x00\x00\x00",
		"negative length":                   "I" + rel + "N\x00\x01t\xff\xff\xff\xff",
		"length beyond the message":         "I" + rel + "N\x00\x01t\x00\x00\x00\x02a",
		"length far beyond the message":     "I" + rel + "N\x00\x01t\x7f\xff\xff\xffa",
		"more columns than there are":       "I" + rel + "N\xff\xffnnn",
		"more old columns than there are":   "U" + rel + "O\x00\x02nN\x00\x01n",
		"more truncated tables than listed": "T\xff\xff\xff\xff\x00" + rel,
		"more relation columns than listed": "R" + rel + "s\x00t\x00d\xff\xff" + "\x00a\x00\x00\x00\x00\x17\xff\xff\xff\xff",
		"names without an end":              "R" + rel + "public",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parse([]byte(msg)); err == nil {
				t.Errorf("parse(%q) = %+v; want an error", msg, got)
			}
		})
	}
}

func TestParseRowAppends(t *testing.T) {
	msg := []byte(messages["update with an old key"].bytes)
	for _, capacity := range []int{2, 3, 5, 6, 100} {
		given := append(make([]uint32, 0, capacity), 77, 78)
		row, offsets, err := pgoutput.ParseRow(msg, given)
		if err != nil {
			t.Fatalf("ParseRow(%q) = %v", msg, err)
		}
		if diff := cmp.Diff([]uint32{77, 78, 9, 1, 19, 0}, offsets); diff != "" {
			t.Errorf("ParseRow with capacity %d, offsets (-want +got):\n%s", capacity, diff)
		}
		if diff := cmp.Diff([][]uint32{{9, 1}, {19, 0}}, [][]uint32{row.Old, row.New}); diff != "" {
			t.Errorf("ParseRow with capacity %d, Old and New (-want +got):\n%s", capacity, diff)
		}
		// Appending to a tuple must not write where the next row's offsets go.
		if cap(row.Old) != 2 || cap(row.New) != 2 {
			t.Errorf("ParseRow with capacity %d, capacities of Old and New are %d and %d, want 2 and 2", capacity, cap(row.Old), cap(row.New))
		}
	}
}

func TestTime(t *testing.T) {
	for name, tc := range map[string]struct {
		micros int64
		want   time.Time
	}{
		"epoch":  {0, time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)},
		"before": {-1, time.Date(1999, time.December, 31, 23, 59, 59, 999999000, time.UTC)},
		"after":  {86400_000_001, time.Date(2000, time.January, 2, 0, 0, 0, 1000, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			got := pgoutput.Time(tc.micros)
			if !got.Equal(tc.want) || got.Location() != time.UTC {
				t.Errorf("Time(%d) = %s, want %s", tc.micros, got, tc.want)
			}
			if back := pgoutput.Micros(got); back != tc.micros {
				t.Errorf("Micros(Time(%d)) = %d", tc.micros, back)
			}
		})
	}
}

// checkOffsets fails if a column of a tuple lies outside of its message, or
// two overlap.
func checkOffsets(t *testing.T, msg []byte, cols []uint32, from int) (end int) {
	t.Helper()
	for i, at := range cols {
		if at <= pgoutput.Null {
			continue
		}
		if int(at) < from || int(at)+4 > len(msg) {
			t.Fatalf("column %d lies at %d, want %d to %d", i, at, from, len(msg)-4)
		}
		size := int(binary.BigEndian.Uint32(msg[at:]))
		if size > len(msg)-int(at)-4 {
			t.Fatalf("column %d at %d has %d bytes, but the message ends at %d", i, at, size, len(msg))
		}
		from = int(at) + 4 + size
	}
	return from
}
