package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// newKafka returns the firehose of a place of Kafka. It starts nothing.
func (o *targetOptions) newKafka(brokers, database string, opts *kafka.Options) (*sinks.Firehose, error) {
	if o.latest {
		return kafka.NewLatest(brokers, database, opts)
	}
	return kafka.New(brokers, database, opts)
}

// newNATS returns the firehose of a place of NATS. It starts nothing.
func (o *targetOptions) newNATS(link *natsLink, database string, opts *jetstream.Options) (*sinks.Firehose, error) {
	if o.latest {
		return jetstream.NewLatest(link.nc, database, o.bucket, opts)
	}
	return jetstream.New(link.nc, database, opts)
}

// wrongLatest returns what does not go with the latest state.
func (o *targetOptions) wrongLatest() error {
	js := &o.jetstream
	switch {
	case !o.latest:
		return nil
	case o.skipGap:
		return errors.New("on-gap: skip does not go with latest: true: rows that were deleted in the gap would stay")
	case js.Stream != "":
		return errors.New("stream does not go with latest: true; bucket names where the latest state is")
	case targetKind(o.target) == kindNATS && (js.MaxAge != 0 || js.MaxBytes != 0 || js.MaxMsgs != 0 || js.MsgID):
		return errors.New("retention, max-bytes, max-messages and message-ids do not go with latest: true: the last state of each key is kept for ever")
	}
	return nil
}

// joins has a place that keeps the latest state begin with the present state
// where it cannot go on: it is new or empty, or a run left it out and the slot
// has moved on since.
func (d *destination) joins(opts *listeners.SubscribeOptions, stateDir, database string) {
	if !d.options.latest {
		return
	}
	opts.Current = true
	opts.Positions = &latestPositions{
		files: listeners.NewFilePositions(filepath.Join(stateDir, "latest")), place: database,
		empty: d.empty,
	}
}

// caughtUp waits until everything is stored that was committed at the start, and
// the present state where that was asked for.
func caughtUp(ctx context.Context, source *cdc.Source, dests []*destination) error {
	if err := source.CaughtUp(ctx); err != nil {
		return err
	}
	for _, d := range dests {
		if d.options.latest {
			_ = d.sub.Wait(ctx, listeners.Position{}) // one that has ended is no longer waited for
		}
	}
	return nil
}

// latestPositions keep how far a place with the latest state is, by the names of
// the database and the place. An empty place is nowhere, whatever is stored.
type latestPositions struct {
	files *listeners.FilePositions
	place string
	empty func() bool
}

// Open implements [listeners.PositionStore].
func (p *latestPositions) Open(ctx context.Context, name string) (listeners.PositionKeeper, listeners.Position, error) {
	keeper, at, err := p.files.Open(ctx, p.place+"/"+name)
	if err != nil {
		return nil, at, fmt.Errorf("where %s is: %w", name, err)
	}
	if at.IsZero() || !p.empty() {
		return keeper, at, nil
	}
	// A run that ends within the present state leaves a place that is not empty;
	// the next one must not go on from where the lost one was.
	if err := keeper.Save(ctx, listeners.Position{}); err != nil {
		return nil, at, errors.Join(fmt.Errorf("forget where %s was: %w", name, err), keeper.Close())
	}
	return keeper, listeners.Position{}, nil
}
