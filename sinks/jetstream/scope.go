package jetstream

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/sinks"
)

// A scope is whose events a stream holds: a database's, or one region's.
type scope struct {
	sinks.FirehoseScope
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
func NewRegion(nc *nats.Conn, grid, region string, opts *Options) (*sinks.Firehose, error) {
	if region == "" {
		return nil, fmt.Errorf("jetstream: the region of grid %q must have a name", grid)
	}
	return newFirehose(nc, scope{FirehoseScope: sinks.FirehoseScope{Source: grid, Region: region}}, opts)
}

// RegionStreamName returns the name of the stream that holds a region's events
// unless options say otherwise: "GRID_", the grid's and the region's escaped
// names in upper case, with "_" between them.
func RegionStreamName(grid, region string) string {
	return "GRID_" + strings.ToUpper(sinks.EscapeToken(grid)+"_"+sinks.EscapeToken(region))
}

func (s scope) stream() string {
	if s.bucket != "" {
		return bucketStream(s.bucket)
	}
	if s.Region != "" {
		return RegionStreamName(s.Source, s.Region)
	}
	return StreamName(s.Source)
}

func (s scope) address() string {
	if s.bucket != "" {
		return bucketAddress(s.bucket)
	}
	return s.Address()
}

func (s scope) resetAddress() string {
	if s.bucket != "" {
		return bucketAddress(s.bucket) + bucketReset
	}
	return s.ResetAddress()
}

// endAddress returns where the end of a batch is published. It is stored nowhere.
func (s scope) endAddress() string { return s.address() + "._control.batch.end.all" }
