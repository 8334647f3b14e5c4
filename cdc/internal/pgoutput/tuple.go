package pgoutput

import (
	"encoding/binary"
	"fmt"
)

// What a column's entry in the offsets of a tuple says if it is no offset: an
// offset is always larger.
const (
	Unchanged = 0 // not sent
	Null      = 1
)

// A Row is an insert, update or delete: where its tuples lie in the message.
// Old and New are sub-slices of the offsets that ParseRow appended: for each
// column the offset of its 4-byte length, which its text follows, or Unchanged
// or Null. They are nil where the message has no such tuple.
type Row struct {
	Relation uint32
	Old      []uint32
	OldIsKey bool // Old holds the replica identity only; its other columns are Null
	New      []uint32
}

// ParseRow reads an Insert, Update or Delete. It appends the columns' offsets
// to offsets and returns it.
func ParseRow(msg []byte, offsets []uint32) (Row, []uint32, error) {
	var row Row
	if len(msg) < 6 {
		return row, offsets, ErrTruncated
	}
	row.Relation = binary.BigEndian.Uint32(msg[1:])
	kind, at := msg[5], 6
	if offsets == nil {
		offsets = []uint32{} // a tuple without columns is not nil
	}
	start := len(offsets)
	oldEnd := start
	hasOld := kind == 'K' || kind == 'O'
	var err error
	if hasOld {
		if msg[0] == TypeInsert {
			return row, offsets, fmt.Errorf("an insert with an old tuple %q", kind)
		}
		row.OldIsKey = kind == 'K'
		if offsets, at, err = parseTuple(msg, at, offsets); err != nil {
			return row, offsets, err
		}
		oldEnd = len(offsets)
		if msg[0] == TypeUpdate {
			if at >= len(msg) {
				return row, offsets, ErrTruncated
			}
			kind = msg[at]
			at++
		}
	}
	if msg[0] != TypeDelete {
		if kind != 'N' {
			return row, offsets, fmt.Errorf("tuple of kind %q where the new row should be", kind)
		}
		if offsets, at, err = parseTuple(msg, at, offsets); err != nil {
			return row, offsets, err
		}
		row.New = offsets[oldEnd:len(offsets):len(offsets)]
	} else if !hasOld {
		return row, offsets, fmt.Errorf("a delete with a tuple of kind %q", kind)
	}
	if at != len(msg) {
		return row, offsets, fmt.Errorf("%d bytes follow the last tuple", len(msg)-at)
	}
	if hasOld {
		row.Old = offsets[start:oldEnd:oldEnd]
	}
	return row, offsets, nil
}

func parseTuple(msg []byte, at int, offsets []uint32) ([]uint32, int, error) {
	if at+2 > len(msg) {
		return offsets, at, ErrTruncated
	}
	n := int(binary.BigEndian.Uint16(msg[at:]))
	at += 2
	for range n {
		if at >= len(msg) {
			return offsets, at, ErrTruncated
		}
		kind := msg[at]
		at++
		switch kind {
		case 't':
			if at+4 > len(msg) {
				return offsets, at, ErrTruncated
			}
			size := int(int32(binary.BigEndian.Uint32(msg[at:])))
			if size < 0 || size > len(msg)-at-4 {
				return offsets, at, ErrTruncated
			}
			offsets = append(offsets, uint32(at))
			at += 4 + size
		case 'n':
			offsets = append(offsets, Null)
		case 'u':
			offsets = append(offsets, Unchanged)
		default:
			return offsets, at, fmt.Errorf("column of unknown kind %q", kind)
		}
	}
	return offsets, at, nil
}
