package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// streamPrefix is what the names of firehose streams begin with.
const streamPrefix = "CDC_"

// findStream returns the stream with this name or, without a name, the only
// one that is a firehose. It waits for the first one to be created.
func (a *app) findStream(ctx context.Context, js natsjs.JetStream, name string) (natsjs.Stream, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for waiting := false; ; waiting = true {
		names, err := firehoseStreams(ctx, js)
		if err != nil {
			return nil, err
		}
		switch {
		case name != "":
			stream, err := js.Stream(ctx, name)
			if !errors.Is(err, natsjs.ErrStreamNotFound) {
				return stream, err
			}
			if len(names) > 0 {
				return nil, fmt.Errorf("there is no stream %s, but %s; choose with --stream", name, strings.Join(names, ", "))
			}
		case len(names) == 1:
			return js.Stream(ctx, names[0])
		case len(names) > 1:
			return nil, fmt.Errorf("there are %d streams: %s; choose one with --stream", len(names), strings.Join(names, ", "))
		}
		if !waiting {
			fmt.Fprintln(a.stderr, `no stream yet; waiting for "rowcall run" to create it`)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func firehoseStreams(ctx context.Context, js natsjs.JetStream) ([]string, error) {
	lister := js.StreamNames(ctx)
	var names []string
	for name := range lister.Name() {
		if strings.HasPrefix(name, streamPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	err := lister.Err()
	if errors.Is(err, natsjs.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders) {
		err = errors.New("the NATS server has no JetStream; is it the one that rowcall publishes to?")
	}
	return names, err
}

// sequenceOf returns the sequence of the first message of a transaction that
// was committed at lsn or later. The cluster is that of the newest message.
func sequenceOf(ctx context.Context, nc *nats.Conn, at natsPlace, info *natsjs.StreamInfo, lsn cdc.LSN) (uint64, error) {
	first := func(opts *jetstream.ReadOptions) (m jetstream.Message, found bool, err error) {
		opts.Domain, opts.APIPrefix = at.domain, at.apiPrefix
		for m, err := range jetstream.Read(ctx, nc, info.Config.Name, opts) {
			return m, err == nil, err
		}
		return m, false, nil
	}
	newest, found, err := first(&jetstream.ReadOptions{Sequence: info.State.LastSeq})
	if err != nil || !found {
		return info.State.LastSeq + 1, err
	}
	before := listeners.Position{Epoch: newest.Position.Epoch, Commit: uint64(lsn) - 1, Index: math.MaxUint32}
	m, found, err := first(&jetstream.ReadOptions{After: before})
	if err != nil || !found {
		return info.State.LastSeq + 1, err
	}
	return m.Sequence, nil
}
