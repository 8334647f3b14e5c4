package cdc

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in Postgres' write-ahead log (Postgres manual, "pg_lsn
// Type").
type LSN uint64

// String returns the form that Postgres prints, such as "16/B374D848".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN is the inverse of [LSN.String].
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	h, err := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !found || err != nil || err2 != nil {
		return 0, fmt.Errorf("cdc: %q is not an LSN such as 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// Scan implements [database/sql.Scanner] for the pg_lsn type.
func (l *LSN) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("cdc: scan %T into an LSN", src)
	}
	v, err := ParseLSN(s)
	*l = v
	return err
}

// MarshalText implements [encoding.TextMarshaler] with the form of String.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] for that form.
func (l *LSN) UnmarshalText(text []byte) error {
	v, err := ParseLSN(string(text))
	if err == nil {
		*l = v
	}
	return err
}
