package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowcall/rowcall/cdc"
)

// A prefixList is a flag that holds prefixes of messages, separated by commas.
type prefixList struct {
	prefixes []string
	set      bool
}

// String implements pflag.Value.
func (l *prefixList) String() string { return strings.Join(l.prefixes, ",") }

// Set implements pflag.Value.
func (l *prefixList) Set(s string) error {
	if !l.set {
		l.prefixes, l.set = nil, true
	}
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p == "" {
			return errors.New("an empty prefix")
		}
		l.prefixes = append(l.prefixes, p)
	}
	return nil
}

// Type implements pflag.Value.
func (l *prefixList) Type() string { return "prefixes" }

// An outboxList is a flag that holds outboxes, separated by commas. Columns of
// one follow its table: "public.outbox:id=event_id,type=kind".
type outboxList struct {
	outboxes []cdc.Outbox
	text     []string
}

// String implements pflag.Value.
func (l *outboxList) String() string { return strings.Join(l.text, ",") }

// Set implements pflag.Value.
func (l *outboxList) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		table, columns, named := strings.Cut(part, ":")
		switch {
		case !named && strings.Contains(part, "="):
			if len(l.outboxes) == 0 {
				return fmt.Errorf("%q comes before a table", part)
			}
			columns, named = part, true
		case table == "":
			return errors.New("an empty table")
		default:
			l.outboxes = append(l.outboxes, cdc.Outbox{Table: table})
		}
		if named {
			if err := setColumn(&l.outboxes[len(l.outboxes)-1], columns); err != nil {
				return err
			}
		}
		l.text = append(l.text, part)
	}
	return nil
}

func setColumn(o *cdc.Outbox, text string) error {
	role, name, _ := strings.Cut(text, "=")
	if name == "" {
		return fmt.Errorf("%q: write role=column", text)
	}
	switch role {
	case "id":
		o.ID = name
	case "aggregatetype":
		o.AggregateType = name
	case "aggregateid":
		o.AggregateID = name
	case "type":
		o.Type = name
	case "payload":
		o.Payload = name
	default:
		return fmt.Errorf("%q: an outbox has id, aggregatetype, aggregateid, type and payload", role)
	}
	return nil
}

// Type implements pflag.Value.
func (l *outboxList) Type() string { return "tables" }
