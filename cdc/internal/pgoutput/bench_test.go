package pgoutput_test

import (
	"strings"
	"testing"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// wide is an insert of seven columns, 90 bytes of text.
var wide = []byte("I\x00\x00\x40\x01N\x00\x07" +
	"t\x00\x00\x00\x071234567" + "t\x00\x00\x00\x0acustomer 9" + "t\x00\x00\x00\x0512.34" + "t\x00\x00\x00\x013" +
	"t\x00\x00\x00\x01t" + "t\x00\x00\x00\x25{\"gift\": true, \"note\": \"fragile\"}    " + "t\x00\x00\x00\x1d2026-01-31 22:04:36.730432+00")

func BenchmarkParseRow(b *testing.B) {
	offsets := make([]uint32, 0, 16)
	b.SetBytes(int64(len(wide)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := pgoutput.ParseRow(wide, offsets); err != nil {
			b.Fatal(err)
		}
	}
}

func TestParseRowAllocatesNothing(t *testing.T) {
	offsets := make([]uint32, 0, 16)
	allocs := testing.AllocsPerRun(100, func() {
		if _, _, err := pgoutput.ParseRow(wide, offsets); err != nil {
			t.Fatalf("ParseRow(%q) = %v", wide, err)
		}
	})
	if allocs != 0 {
		t.Errorf("ParseRow allocates %v times, want 0", allocs)
	}
}

func TestAHugeCountAllocatesLittle(t *testing.T) {
	for name, msg := range map[string]string{
		"relation": "R\x00\x00\x40\x01s\x00t\x00d\xff\xff",
		"truncate": "T\xff\xff\xff\xff\x00" + strings.Repeat("\x00", 64),
		"insert":   "I\x00\x00\x40\x01N\xff\xff",
	} {
		if allocs := testing.AllocsPerRun(10, func() { _, _ = parse([]byte(msg)) }); allocs > 10 {
			t.Errorf("parse of a %s that holds less than it says allocates %v times, want at most 10", name, allocs)
		}
	}
}
