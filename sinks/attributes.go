package sinks

import (
	"net/url"
	"strconv"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// SpecVersion is the CloudEvents version of every message.
const SpecVersion = "1.0"

// ContentType is the datacontenttype of every message.
const ContentType = "application/json"

// timeLayout has six digits always, so that times sort as text.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// Len returns the number of messages that a batch becomes: one for each event,
// one for a reset, none for [listeners.Live].
func Len(b *listeners.Batch) int {
	switch b.Kind {
	case listeners.Changes, listeners.Snapshot:
		return len(b.Events)
	case listeners.Reset:
		return 1
	case listeners.Live:
	}
	return 0
}

// DatabaseSource returns the source attribute of a database's events.
func DatabaseSource(database string) string { return "postgres/" + url.PathEscape(database) }

// GridSource returns the source attribute of a grid's events.
func GridSource(grid string) string { return "grid/" + url.PathEscape(grid) }

func schemaSource(s *listeners.Schema) string {
	if s.Namespace == "" {
		return GridSource(s.Source)
	}
	return DatabaseSource(s.Source)
}

// eventType returns the type attribute without building it for known
// operations.
func eventType(op listeners.Op) string {
	switch op {
	case listeners.Create:
		return "rowcall.create.v1"
	case listeners.Update:
		return "rowcall.update.v1"
	case listeners.Delete:
		return "rowcall.delete.v1"
	case listeners.Truncate:
		return "rowcall.truncate.v1"
	case listeners.Read:
		return "rowcall.read.v1"
	case listeners.Message:
		return "rowcall.message.v1"
	}
	return "rowcall." + op.String() + ".v1"
}

const (
	resetType = "rowcall.reset.v1"
	liveType  = "rowcall.live.v1"
)

// causeOf returns the cause attribute: "" for what everybody expects.
func causeOf(e *listeners.Event) string {
	if e.Cause == listeners.CauseWrite || e.Op == listeners.Read && e.Cause == listeners.CauseSnapshot {
		return ""
	}
	return e.Cause.String()
}

// appendEscaped appends a collection as it stands in the subject attribute:
// with the escapes of [listeners.Key.String].
func appendEscaped(dst []byte, s string) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := range len(s) {
		b := s[i]
		if b <= ' ' || b >= 0x7f || b == '%' || b == '/' {
			dst = append(dst, '%', hexDigits[b>>4], hexDigits[b&0xf])
			continue
		}
		dst = append(dst, b)
	}
	return dst
}

// appendSubject appends the subject attribute. The second result is where the
// key's text begins.
func appendSubject(dst []byte, collection string, e *listeners.Event) ([]byte, int) {
	dst = append(dst, collection...)
	key := e.Key()
	if key.Len() == 0 {
		return dst, len(dst)
	}
	dst = append(dst, '/')
	start := len(dst)
	return key.Append(dst), start
}

func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	return t.UTC().AppendFormat(dst, timeLayout)
}

// txEnd reports whether message i is the last of its transaction or snapshot.
func txEnd(b *listeners.Batch, i int) bool {
	return b.Last && b.Kind != listeners.Reset && i == len(b.Events)-1
}

func txID(tx listeners.Tx) string {
	if tx.ID == 0 {
		return ""
	}
	return strconv.FormatUint(tx.ID, 10)
}
