package sinks

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A Part is one message as the part of a batch that it was: an event, a reset or
// a live marker.
type Part struct {
	// Kind is [listeners.Changes], [listeners.Snapshot] for an event with Op
	// Read, [listeners.Reset] or [listeners.Live].
	Kind   listeners.Kind
	Source string // as in [listeners.Schema.Source]
	Tx     listeners.Tx
	TxEnd  bool
	// Filling says of a change that the snapshot before it goes on behind it.
	Filling bool
	// Position is the event's or the marker's.
	Position listeners.Position
	// Event is set for Changes and Snapshot.
	Event listeners.Event
	// Collections are those of a Reset.
	Collections []string
	// Size is the memory that it holds, in bytes, as estimated.
	Size int
}

// partBytes is what an event takes besides its body, roughly.
const partBytes = 400

// A Decoder turns messages back into the events that they were made of. Records
// refer to the message's body and decode a column when it is asked for.
//
// The wire has names and values, and no types. So a record's schema has the
// columns that the message names, of which those of "key" are the key, with
// empty types. One schema serves all messages of a collection that have the same
// columns. The text of a value is what a JSON string says, and otherwise the
// JSON: a timestamp has a T, and a boolean is "true".
//
// Scan stores: a string or number into strings and, if it fits, integers and
// floats; a string into [time.Time] (RFC 3339, or a date or time of Postgres) and
// into byte arrays ("\x" or a UUID); into []byte the bytes of a bytea ("\x…"),
// those of a region's []byte (base64), or the text; anything into [database/sql.Scanner]
// (offered as a string, then as a time or a number), [json.Unmarshaler], [encoding.TextUnmarshaler],
// [json.RawMessage], pointers, and by [json.Unmarshal] into structs, maps and
// slices. An any becomes a string, int64, [json.Number], bool, []any or
// map[string]any.
//
// All methods may be called from any goroutine.
type Decoder struct {
	mu      sync.Mutex
	origins map[string]*origin // by address, without operation and partition
	causes  map[string]listeners.Cause

	timeText string // the last time read
	time     time.Time
}

// NewDecoder returns a decoder.
func NewDecoder() *Decoder {
	d := &Decoder{origins: make(map[string]*origin), causes: make(map[string]listeners.Cause)}
	for c := range listeners.Cause(64) {
		d.causes[c.String()] = c
	}
	return d
}

// Decode reads one message. Address is the dotted name; attribute returns the
// plain value of a CloudEvents attribute, "" if it is absent. The part keeps
// body, which nobody may change any more. The body of a message that was parked has
// to be fetched before: otherwise the error is a [ParkedError].
func (d *Decoder) Decode(address string, attribute func(name string) string, body []byte) (Part, error) {
	p, err := d.decode(address, attribute, body)
	if err != nil {
		return p, fmt.Errorf("sinks: message %q at %s: %w", attribute("id"), address, err)
	}
	return p, nil
}

func (d *Decoder) decode(address string, attribute func(name string) string, body []byte) (Part, error) {
	p := Part{Size: partBytes + len(body), TxEnd: attribute("txend") == "true", Filling: attribute("filling") == "true"}
	var err error
	if p.Position, err = listeners.ParsePosition(attribute("sequence")); err != nil {
		return p, err
	}
	if p.Source, err = sourceName(attribute("source")); err != nil {
		return p, err
	}
	if s := attribute("txid"); s != "" {
		if p.Tx.ID, err = strconv.ParseUint(s, 10, 64); err != nil {
			return p, fmt.Errorf("txid: %w", err)
		}
	}
	m, err := readBody(body)
	if err != nil {
		return p, fmt.Errorf("body: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.Tx.Time, err = d.parseTime(attribute("time")); err != nil {
		return p, fmt.Errorf("time: %w", err)
	}
	switch m.op {
	case "reset":
		p.Kind, p.Collections = listeners.Reset, m.collections
		return p, nil
	case "live":
		p.Kind = listeners.Live
		return p, nil
	}
	p.Event.Position = p.Position
	if p.Event.Op, err = listeners.ParseOp(m.op); err != nil {
		return p, err
	}
	if p.Event.Op == listeners.Read {
		p.Kind, p.Event.Cause = listeners.Snapshot, listeners.CauseSnapshot
	}
	if s := attribute("cause"); s != "" {
		c, known := d.causes[s]
		if !known {
			return p, fmt.Errorf("unknown cause %q", s)
		}
		p.Event.Cause = c
	}
	o, err := d.origin(address, p.Source)
	if err != nil {
		return p, err
	}
	return p, o.fill(&p.Event, &m)
}

// sourceName returns the database or grid of a source attribute.
func sourceName(attribute string) (string, error) {
	_, name, ok := strings.Cut(attribute, "/")
	if !ok {
		return "", fmt.Errorf("%q is no source", attribute)
	}
	return url.PathUnescape(name)
}

func (d *Decoder) parseTime(s string) (time.Time, error) {
	if s == "" || s == d.timeText {
		if s == "" {
			return time.Time{}, nil
		}
		return d.time, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err == nil {
		d.timeText, d.time = s, t
	}
	return t, err
}

// A body is the outside of a message's JSON.
type body struct {
	op                                    string
	key, oldKey, before, after, unchanged []byte // nil where there is none
	collections                           []string
}

func readBody(text []byte) (body, error) {
	var b body
	it := members{text: text}
	for it.next() {
		v := it.value
		if isNull(v) {
			continue
		}
		switch string(it.name) {
		case "op":
			b.op = opName(v)
		case "key":
			b.key = v
		case "oldkey":
			b.oldKey = v
		case "before":
			b.before = v
		case "after":
			b.after = v
		case "unchanged":
			b.unchanged = v
		case "collections":
			names, err := stringsOf(v)
			if err != nil {
				return b, fmt.Errorf("collections: %w", err)
			}
			b.collections = names
		case "dataref":
			return b, &ParkedError{Ref: string(jsonText(v))}
		}
	}
	return b, it.err
}

// opName returns what a JSON string says, without making a string of what is
// common.
func opName(v []byte) string {
	for _, op := range [...]string{"create", "update", "delete", "read"} {
		if len(v) == len(op)+2 && string(v[1:len(v)-1]) == op {
			return op
		}
	}
	return string(jsonText(v))
}
