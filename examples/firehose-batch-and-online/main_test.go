package main

import (
	"bytes"
	"testing"
)

func TestBatchAndOnline(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v, after:\n%s", err, out.String())
	}
	const want = `report: 2 seats sold for 80 in 1 bookings
dashboard: 3 seats sold for 120 in 2 bookings
dashboard: 4 seats sold for 160 in 3 bookings
mailers: 4 mails
`
	if got := out.String(); got != want {
		t.Errorf("the program wrote:\n%s\nwant:\n%s", got, want)
	}
}
