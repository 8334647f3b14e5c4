package jetstream

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A scope is whose events a stream holds: a database's, or one region's.
type scope struct {
	source string // the database or the grid
	region string // "" for a database
	bucket string // of a [NewLatest]; "" for a firehose
}

// NewRegion returns a firehose for the events of one region of a grid. It is as
// [New] says. Subscribe it with [listeners.SubscribeOptions].Current, so that
// the stream begins with the region's state.
//
// A region that is opened again, as in a new process, has new positions. Then
// the stream gets a reset and the region's state, and its readers follow. If
// the same region subscribes its firehose again, and has not changed since, nothing is
// stored twice.
func NewRegion(nc *nats.Conn, grid, region string, opts *Options) (*Firehose, error) {
	if region == "" {
		return nil, fmt.Errorf("jetstream: the region of grid %q must have a name", grid)
	}
	return newFirehose(nc, scope{source: grid, region: region}, opts)
}

// RegionStreamName returns the name of the stream that holds a region's events
// unless options say otherwise: "GRID_", the grid's and the region's escaped
// names in upper case, with "_" between them.
func RegionStreamName(grid, region string) string {
	return "GRID_" + strings.ToUpper(sinks.EscapeToken(grid)+"_"+sinks.EscapeToken(region))
}

func (s scope) String() string {
	if s.region != "" {
		return fmt.Sprintf("region %q of grid %q", s.region, s.source)
	}
	return fmt.Sprintf("database %q", s.source)
}

func (s scope) validate() []string {
	if s.source != "" {
		return nil
	}
	if s.region != "" {
		return []string{"the grid must have a name"}
	}
	return []string{"the database must have a name"}
}

func (s scope) stream() string {
	if s.bucket != "" {
		return bucketStream(s.bucket)
	}
	if s.region != "" {
		return RegionStreamName(s.source, s.region)
	}
	return StreamName(s.source)
}

func (s scope) address() string {
	if s.bucket != "" {
		return bucketAddress(s.bucket)
	}
	if s.region != "" {
		return sinks.RegionAddress(s.source, s.region)
	}
	return sinks.DatabaseAddress(s.source)
}

func (s scope) resetAddress() string {
	if s.bucket != "" {
		return bucketAddress(s.bucket) + bucketReset
	}
	if s.region != "" {
		return sinks.RegionResetAddress(s.source, s.region)
	}
	return sinks.ResetAddress(s.source)
}

func (s scope) attribute() string {
	if s.region != "" {
		return sinks.GridSource(s.source)
	}
	return sinks.DatabaseSource(s.source)
}

func (s scope) encoder(partitions int) *sinks.Encoder {
	if s.region != "" {
		return sinks.NewRegionEncoder(s.region, partitions)
	}
	return sinks.NewEncoder(partitions)
}

// marker reports whether a batch is one message without an event.
func marker(b *listeners.Batch) bool {
	return b.Kind == listeners.Reset || b.Kind == listeners.Live
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
