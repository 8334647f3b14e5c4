package cdc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

func TestColumnOfARow(t *testing.T) {
	for name, tc := range map[string]struct {
		row, value, rest string
		bad              bool
	}{
		"only one":      {row: "\x00\x00\x00\x02ab", value: "ab"},
		"first of two":  {row: "\x00\x00\x00\x01a\x00\x00\x00\x00", value: "a", rest: "\x00\x00\x00\x00"},
		"empty":         {row: "\x00\x00\x00\x00"},
		"null":          {row: "\xff\xff\xff\xff", bad: true},
		"too short":     {row: "\x00\x00\x00\x03ab", bad: true},
		"no length":     {row: "\x00\x00", bad: true},
		"nothing there": {row: "", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			value, rest, err := column([]byte(tc.row))
			if string(value) != tc.value || string(rest) != tc.rest || (err != nil) != tc.bad {
				t.Errorf("column(%q) = %q, %q, %v; want %q, %q, error: %t", tc.row, value, rest, err, tc.value, tc.rest, tc.bad)
			}
		})
	}
}

// An answer is a connection that ends after it.
type answer struct {
	net.Conn
	io.Reader
}

func (a *answer) Read(p []byte) (int, error) { return a.Reader.Read(p) }

// The end of a query is 'Z', also after an error; an end of the connection is
// an error that keeps the server's last word.
func TestRowsOfACopy(t *testing.T) {
	const (
		row      = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01a"
		ready    = "Z\x00\x00\x00\x05I"
		refusal  = "E\x00\x00\x00\x13SERROR\x00C42501\x00\x00"
		complete = "1\x00\x00\x00\x042\x00\x00\x00\x04"
	)
	stop := errors.New("stop")
	for name, tc := range map[string]struct {
		answer string
		rows   int
		state  string
		fails  bool
		fn     error
	}{
		"rows":                  {answer: complete + row + row + "C\x00\x00\x00\x0dSELECT 2\x00" + ready, rows: 2},
		"none":                  {answer: complete + ready},
		"refused":               {answer: refusal + ready, state: "42501", fails: true},
		"refused after a row":   {answer: row + refusal + ready, rows: 1, state: "42501", fails: true},
		"gone":                  {answer: row, rows: 1, fails: true},
		"gone with a last word": {answer: refusal, state: "42501", fails: true},
		"no columns":            {answer: "D\x00\x00\x00\x05\x00", fails: true},
		"the reader stops":      {answer: row + row, rows: 1, fails: true, fn: stop},
	} {
		t.Run(name, func(t *testing.T) {
			q := &slotCopy{w: &wire{conn: &answer{Reader: strings.NewReader(tc.answer)}, block: make([]byte, blockSize)}, busy: true}
			rows := 0
			err := q.rows(func(row []byte) error {
				if rows++; string(row) != "\x00\x00\x00\x01a" {
					return fmt.Errorf("row %q", row)
				}
				return tc.fn
			})
			if rows != tc.rows || (err != nil) != tc.fails || sqlState(err) != tc.state {
				t.Errorf("%d rows, %v with SQLSTATE %q; want %d rows, error: %t, %q", rows, err, sqlState(err), tc.rows, tc.fails, tc.state)
			}
			if want := !strings.HasSuffix(tc.answer, ready); q.busy != want {
				t.Errorf("after the answer busy is %t, want %t", q.busy, want)
			}
		})
	}
}
