package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/rowcall/rowcall/cdc"
)

// An announcer tells an operator what exists now: as plain lines for people,
// as log records for machines.
type announcer struct {
	w    io.Writer
	log  *slog.Logger
	json bool
}

// say announces one thing. The text is a whole line for people; message and
// attributes say the same for machines.
func (o *announcer) say(text, message string, attributes ...any) {
	if o.json {
		o.log.Info(message, attributes...) //nolint:sloglint // callers pass constants
		return
	}
	fmt.Fprintln(o.w, text)
}

// reading announces what the events come from, once it exists.
func (o *announcer) reading(s *cdc.Source, snapshotOnly bool) {
	if snapshotOnly {
		o.say(fmt.Sprintf("events come from database %q: a snapshot, and nothing stays behind there", s.Database()),
			"reading", "database", s.Database())
		return
	}
	o.say(fmt.Sprintf("events come from database %q: slot %s, publication %s", s.Database(), s.Slot(), s.Publication()),
		"reading", "database", s.Database(), "slot", s.Slot(), "publication", s.Publication())
}
