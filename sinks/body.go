package sinks

import "github.com/rowcall/rowcall/listeners"

// appendResetBody appends the whole body of a reset.
func appendResetBody(dst []byte, b *listeners.Batch) []byte {
	dst = append(dst, `{"op":"reset"`...)
	for i, c := range b.Collections {
		if i == 0 {
			dst = append(dst, `,"collections":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendJSONString(dst, c)
	}
	if len(b.Collections) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// AppendBody appends the JSON body of an event, as the package comment
// describes it, to dst. Of its own it allocates nothing.
func AppendBody(dst []byte, e *listeners.Event) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, e.Op.String()...)
	dst = append(dst, `","key":`...)
	dst = e.Key().AppendJSON(dst)
	if old, changed := e.ChangedKey(); changed {
		dst = append(dst, `,"oldkey":`...)
		dst = old.AppendJSON(dst)
	}
	dst = append(dst, `,"before":`...)
	dst = e.Before.AppendJSON(dst)
	dst = append(dst, `,"after":`...)
	dst = e.After.AppendJSON(dst)
	dst = appendUnchanged(dst, e.After)
	return append(dst, '}')
}

func appendUnchanged(dst []byte, r listeners.Record) []byte {
	if !r.Exists() {
		return dst
	}
	columns := r.Schema().Columns
	found := false
	for i := range columns {
		if r.At(i).State() != listeners.Unchanged {
			continue
		}
		if found {
			dst = append(dst, ',')
		} else {
			dst = append(dst, `,"unchanged":[`...)
			found = true
		}
		dst = appendJSONString(dst, columns[i].Name)
	}
	if found {
		dst = append(dst, ']')
	}
	return dst
}
