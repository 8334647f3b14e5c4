package sinks

import (
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// A FirehoseScope is whose events a firehose holds: a database's, or those of
// one region of a grid. Regions count their positions each for itself.
type FirehoseScope struct {
	Source string // the database or the grid
	Region string // "" for a database
}

// String names it for people.
func (s FirehoseScope) String() string {
	if s.Region != "" {
		return fmt.Sprintf("region %q of grid %q", s.Region, s.Source)
	}
	return fmt.Sprintf("database %q", s.Source)
}

// Faults says what is wrong with it; nil if nothing is.
func (s FirehoseScope) Faults() []string {
	switch {
	case s.Source != "":
		return nil
	case s.Region != "":
		return []string{"the grid must have a name"}
	}
	return []string{"the database must have a name"}
}

// Address returns what the addresses of all its messages begin with, see
// [DatabaseAddress] and [RegionAddress].
func (s FirehoseScope) Address() string {
	if s.Region != "" {
		return RegionAddress(s.Source, s.Region)
	}
	return DatabaseAddress(s.Source)
}

// ResetAddress returns the address of its resets.
func (s FirehoseScope) ResetAddress() string {
	if s.Region != "" {
		return RegionResetAddress(s.Source, s.Region)
	}
	return ResetAddress(s.Source)
}

// Attribute returns the source attribute of its messages.
func (s FirehoseScope) Attribute() string {
	if s.Region != "" {
		return GridSource(s.Source)
	}
	return DatabaseSource(s.Source)
}

func (s FirehoseScope) encoder(partitions int) *Encoder {
	if s.Region != "" {
		return NewRegionEncoder(s.Region, partitions)
	}
	return NewEncoder(partitions)
}

// owns returns an error if a schema's events do not belong into the scope.
func (s FirehoseScope) owns(schema *listeners.Schema) error {
	switch {
	case s.Region == "" && schema.Namespace == "":
		return fmt.Errorf("sinks: region %s of %s does not belong into the firehose of a database", schema.Name, schema.Source)
	case s.Region != "" && (schema.Namespace != "" || schema.Name != s.Region):
		return fmt.Errorf("sinks: %s of %s does not belong into the firehose of %s", schema.Collection(), schema.Source, s)
	}
	return s.ownsSource(schema.Source, "table "+schema.Collection())
}

func (s FirehoseScope) ownsSource(source, what string) error {
	if source == s.Source {
		return nil
	}
	return fmt.Errorf("sinks: %s of source %q does not belong into the firehose of %s", what, source, s)
}

// A renumberer makes positions of a region's snapshots that grow, as those of a
// stream must. A region's rows have the positions of their last changes and come
// in the order of their keys; here they are numbered behind the change that the
// snapshot stands at, and before the next one. Rows come in the same order each
// time, so an unchanged region's snapshot has the same positions again.
type renumberer struct {
	last listeners.Position // that was given
	skip bool               // the stream ends where the snapshot stands
}

// renumber returns what to store of a batch, nil for nothing. tail is where the
// stream ended.
func (r *renumberer) renumber(b *listeners.Batch, tail listeners.Position) *listeners.Batch {
	switch b.Kind {
	case listeners.Reset:
		r.skip = !tail.IsZero() && b.Position == tail
		if b.Position.Compare(r.last) > 0 {
			r.last = b.Position
		}
		r.last.Index++
	case listeners.Snapshot:
	case listeners.Live:
		if r.skip {
			r.skip = false
			return nil
		}
		r.last.Index++
	case listeners.Changes:
		if b.Position.Compare(r.last) > 0 && (len(b.Events) == 0 || b.Events[0].Position.Compare(r.last) > 0) {
			r.last = b.Position
			return b
		}
		// A mirror tells what differs after a reset of its source right behind
		// the position where it stood, and so did its snapshot.
	}
	if r.skip {
		return nil
	}
	c := *b
	if len(b.Events) > 0 {
		c.Events = append([]listeners.Event(nil), b.Events...)
		for i := range c.Events {
			r.last.Index++
			c.Events[i].Position = r.last
		}
	}
	c.Position = r.last
	return &c
}
