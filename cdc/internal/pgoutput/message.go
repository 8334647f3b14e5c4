package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The first byte of a message.
const (
	TypeBegin    = 'B'
	TypeCommit   = 'C'
	TypeRelation = 'R'
	TypeType     = 'Y'
	TypeOrigin   = 'O'
	TypeInsert   = 'I'
	TypeUpdate   = 'U'
	TypeDelete   = 'D'
	TypeTruncate = 'T'
	TypeMessage  = 'M'
)

// ErrTruncated means that a message ends before its last field does.
var ErrTruncated = errors.New("message is truncated")

// Begin opens a transaction. CommitLSN is where its commit record starts.
type Begin struct {
	CommitLSN  uint64
	CommitTime time.Time
	XID        uint32
}

// Commit closes a transaction. EndLSN is the first byte after its commit
// record.
type Commit struct {
	CommitLSN  uint64
	EndLSN     uint64
	CommitTime time.Time
}

// A Relation describes a table as it was when the rows that follow it were
// written.
type Relation struct {
	ID        uint32
	Namespace string // empty for pg_catalog
	Name      string
	Identity  byte // as pg_class.relreplident: d, n, f or i
	Columns   []Column
}

// A Column of a Relation. Key means that it is part of the replica identity.
type Column struct {
	Key      bool
	Name     string
	TypeID   uint32
	Modifier int32
}

// A Truncate empties tables.
type Truncate struct {
	Cascade, RestartIdentity bool
	Relations                []uint32
}

// ParseBegin reads a whole message, its type byte included, as all functions
// here do.
func ParseBegin(msg []byte) (Begin, error) {
	r := fields(msg)
	b := Begin{CommitLSN: r.uint64(), CommitTime: r.time(), XID: r.uint32()}
	return b, r.end()
}

// ParseCommit reads a Commit.
func ParseCommit(msg []byte) (Commit, error) {
	r := fields(msg)
	c := r.commit()
	return c, r.end()
}

// ParseRelation reads a Relation.
func ParseRelation(msg []byte) (Relation, error) {
	r := fields(msg)
	rel := Relation{ID: r.uint32(), Namespace: r.string(), Name: r.string(), Identity: r.byte()}
	n := int(r.uint16())
	for range n {
		if r.failed {
			break // not n allocations for a message that holds less
		}
		rel.Columns = append(rel.Columns, Column{
			Key: r.byte()&1 != 0, Name: r.string(), TypeID: r.uint32(), Modifier: int32(r.uint32()),
		})
	}
	return rel, r.end()
}

// ParseTruncate reads a Truncate.
func ParseTruncate(msg []byte) (Truncate, error) {
	r := fields(msg)
	n := r.uint32()
	options := r.byte()
	t := Truncate{Cascade: options&1 != 0, RestartIdentity: options&2 != 0}
	if uint64(n) > uint64(len(r.rest)/4) {
		return t, ErrTruncated
	}
	t.Relations = make([]uint32, n)
	for i := range t.Relations {
		t.Relations[i] = r.uint32()
	}
	return t, r.end()
}

// A reader takes fields off a message. After it has failed, everything is
// zero.
type reader struct {
	rest   []byte
	failed bool
}

// fields returns a reader of what follows the type byte.
func fields(msg []byte) reader {
	if len(msg) == 0 {
		return reader{failed: true}
	}
	return reader{rest: msg[1:]}
}

func (r *reader) fail() { r.rest, r.failed = nil, true }

func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		r.fail()
		return zeros[:n]
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

var zeros [8]byte

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) time() time.Time {
	return Time(int64(r.uint64()))
}

func (r *reader) string() string {
	for i, b := range r.rest {
		if b == 0 {
			s := string(r.rest[:i])
			r.rest = r.rest[i+1:]
			return s
		}
	}
	r.fail()
	return ""
}

func (r *reader) end() error {
	if r.failed {
		return ErrTruncated
	}
	if len(r.rest) > 0 {
		return fmt.Errorf("%d bytes follow the last field", len(r.rest))
	}
	return nil
}

// epoch is Postgres' zero time in Unix microseconds: 2000-01-01 00:00:00 UTC.
const epoch = 946684800_000_000

// Time converts a TimestampTz of the wire, microseconds since 2000.
func Time(micros int64) time.Time { return time.UnixMicro(micros + epoch).UTC() }

// Micros is the inverse of Time.
func Micros(t time.Time) int64 { return t.UnixMicro() - epoch }
