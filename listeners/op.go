package listeners

import "fmt"

// Op says what happened to a row or entry.
type Op uint8

// The operations. Read is a row as it stood when the reader joined; it is not
// a Create: a mail sender ignores it, a cache wants it. Message is no change of
// a row but something that the application said: After is its content, and the
// collection is "_messages." and what it is about.
const (
	Create Op = iota + 1
	Update
	Delete
	Truncate // all rows of the collection; the event has no key and no records
	Read
	Message
)

var opNames = [...]string{Create: "create", Update: "update", Delete: "delete", Truncate: "truncate", Read: "read", Message: "message"}

// String returns the operation's name on the wire, such as "create".
func (o Op) String() string { return name(opNames[:], uint8(o), "Op") }

// ParseOp is the inverse of [Op.String].
func ParseOp(s string) (Op, error) {
	for i, n := range opNames {
		if n == s && n != "" {
			return Op(i), nil
		}
	}
	return 0, fmt.Errorf("listeners: unknown operation %q", s)
}

// Cause says why an event exists.
type Cause uint8

// The causes.
const (
	CauseWrite    Cause = iota // somebody wrote: the default
	CauseSnapshot              // the state as it stood at a snapshot
	CauseLoad                  // a loader filled a missing entry
	CauseExpire                // the entry's time was up
	CauseEvict                 // the region was full
	CauseClear                 // the region was cleared
	CauseReplay                // history read again on request
	CauseMirror                // a mirror followed what was written at its source
)

var causeNames = [...]string{"write", "snapshot", "load", "expire", "evict", "clear", "replay", "mirror"}

// String returns the cause's name, such as "snapshot".
func (c Cause) String() string { return name(causeNames[:], uint8(c), "Cause") }

func name(names []string, i uint8, kind string) string {
	if int(i) < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}
