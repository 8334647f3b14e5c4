package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// NewSource returns a source for a stream's events, see [sinks.Source]. Start may
// be any, and a place of [sinks.SourceLag] and of errors is a sequence. It starts
// nothing and talks to nobody. The connection stays the caller's; see [Connect].
// The error names every option that is wrong.
//
// Besides what sinks.Source says, its Run returns a [StreamError], or that the
// connection was closed.
func NewSource(nc *nats.Conn, stream string, opts *sinks.SourceOptions) (*sinks.Source, error) {
	return NewDomainSource(nc, "", stream, opts)
}

// NewDomainSource is [NewSource] for a stream of another JetStream domain, as
// [Options].Domain: one that a leaf node has, say.
func NewDomainSource(nc *nats.Conn, domain, stream string, opts *sinks.SourceOptions) (*sinks.Source, error) {
	return newSourceIn(nc, domain, "", stream, opts)
}

// NewImportedSource is [NewSource] for a stream of another account, whose
// JetStream is imported with the prefix apiPrefix, as [Options].APIPrefix.
func NewImportedSource(nc *nats.Conn, apiPrefix, stream string, opts *sinks.SourceOptions) (*sinks.Source, error) {
	return newSourceIn(nc, "", apiPrefix, stream, opts)
}

func newSourceIn(nc *nats.Conn, domain, apiPrefix, stream string, opts *sinks.SourceOptions) (*sinks.Source, error) {
	var faults []error
	if stream == "" || strings.ContainsAny(stream, " .*>/\\\t\r\n") {
		faults = append(faults, errors.New("jetstream: the stream must have a name without spaces, dots, wildcards or slashes"))
	}
	l := &streamLog{nc: nc, stream: stream}
	if nc == nil {
		faults = append(faults, errors.New("jetstream: there must be a connection"))
	} else {
		js, err := elsewhere(nc, domain, apiPrefix)
		if err != nil {
			faults = append(faults, fmt.Errorf("jetstream: %w", err))
		}
		l.js = js
	}
	s, err := newSource(l, opts)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return s, nil
}

func newSource(l *streamLog, opts *sinks.SourceOptions) (*sinks.Source, error) {
	l.log = slog.New(slog.DiscardHandler)
	if opts != nil && opts.Logger != nil {
		l.log = opts.Logger
	}
	return sinks.NewSource(l, opts)
}

// A streamLog is a stream as a [sinks.Source] reads it.
type streamLog struct {
	nc     *nats.Conn
	js     natsjs.JetStream
	stream string
	log    *slog.Logger
}

var _ sinks.Log = (*streamLog)(nil)

// Name implements [sinks.Log].
func (l *streamLog) Name() string { return "stream " + l.stream }

// Lag implements [sinks.LogReader].
func (c *cursor) Lag(ctx context.Context, place uint64) (sinks.SourceLag, error) {
	var lag sinks.SourceLag
	stream, err := c.js.Stream(ctx, c.stream)
	if err != nil {
		return lag, err
	}
	state := stream.CachedInfo().State
	next := max(place+1, state.FirstSeq)
	if next > state.LastSeq {
		return lag, nil
	}
	lag.Messages = state.LastSeq - next + 1
	m, err := stream.GetMsg(ctx, next)
	switch {
	case errors.Is(err, natsjs.ErrMsgNotFound): // deleted, or taken by the limits just now
		return lag, nil
	case err != nil:
		return lag, fmt.Errorf("message %d: %w", next, err)
	}
	lag.Age = max(0, time.Since(m.Time))
	return lag, nil
}
