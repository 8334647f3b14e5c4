package listeners

import (
	"cmp"
	"encoding/hex"
	"fmt"
)

// A Position is the identity and the place of one event within its source. It
// survives restarts: the same change has the same position each time it is
// read. Positions of one source are totally ordered by [Position.Compare].
//
//   - Postgres: Epoch is the cluster's system identifier (it changes when the
//     data comes from another cluster, and grows with the cluster's creation
//     time), Commit is the LSN of the transaction's commit record, Index is
//     the ordinal of the row within its transaction. A row's own LSN is neither
//     unique nor monotone and never used. A snapshot's rows have the LSN just
//     before the snapshot's consistent point, so that they sort before every
//     transaction that is not in it.
//   - Regions: Epoch changes each time the region is built, Commit counts its
//     transactions from 1. A region that mirrors another source keeps that
//     source's positions.
//
// The zero Position is before every other.
type Position struct {
	Epoch  uint64
	Commit uint64
	Index  uint32
}

const positionLen = 16 + 1 + 16 + 1 + 8

// Compare returns -1, 0 or +1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Commit, q.Commit), cmp.Compare(p.Index, q.Index))
}

// IsZero reports whether p is the zero Position.
func (p Position) IsZero() bool { return p == Position{} }

// String returns the text form: three zero-padded hexadecimal numbers joined
// by "-", 42 bytes, which sort as text in the order of [Position.Compare].
func (p Position) String() string {
	var b [positionLen]byte
	return string(p.Append(b[:0]))
}

// Append appends the text form of p to dst.
func (p Position) Append(dst []byte) []byte {
	dst = appendHex(dst, p.Epoch, 16)
	dst = append(dst, '-')
	dst = appendHex(dst, p.Commit, 16)
	dst = append(dst, '-')
	return appendHex(dst, uint64(p.Index), 8)
}

func appendHex(dst []byte, v uint64, digits int) []byte {
	const hexDigits = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&0xf])
	}
	return dst
}

// MarshalText implements [encoding.TextMarshaler].
func (p Position) MarshalText() ([]byte, error) { return p.Append(nil), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Position) UnmarshalText(text []byte) error {
	q, err := ParsePosition(string(text))
	if err == nil {
		*p = q
	}
	return err
}

// ParsePosition is the inverse of [Position.String]. It accepts nothing else.
func ParsePosition(s string) (Position, error) {
	bad := func() (Position, error) {
		return Position{}, fmt.Errorf("listeners: %q is not a position (16-16-8 hexadecimal digits, lower case)", s)
	}
	if len(s) != positionLen || s[16] != '-' || s[33] != '-' {
		return bad()
	}
	var p Position
	for _, part := range []struct {
		text string
		set  func(uint64)
	}{
		{s[:16], func(v uint64) { p.Epoch = v }},
		{s[17:33], func(v uint64) { p.Commit = v }},
		{s[34:], func(v uint64) { p.Index = uint32(v) }},
	} {
		var raw [8]byte
		if _, err := hex.Decode(raw[8-len(part.text)/2:], []byte(part.text)); err != nil {
			return bad()
		}
		var v uint64
		for _, b := range raw {
			v = v<<8 | uint64(b)
		}
		part.set(v)
	}
	if p.String() != s {
		return bad() // upper-case digits would break sorting as text
	}
	return p, nil
}
