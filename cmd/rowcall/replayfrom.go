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
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// replayFrom says what a replay reads, and where it begins.
type replayFrom struct {
	source       string
	database     string // of Kafka only
	natsURL      string
	nats         natsLogin
	stream       string
	fromStart    bool
	since        string
	fromSeq      uint64
	fromLSN      string
	fromPosition string
}

// beginnings are the flags that say where to begin; there is one at most.
var beginnings = [...]string{"from-start", "since", "from-seq", "from-lsn", "from-position"}

func (f *replayFrom) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.source, "from", toNATS, "`what` is read: nats, which is the stream of a NATS server, or kafka://host:port, with user and password in it where needed")
	flags.StringVar(&f.database, "database", "", "`name` of the database whose topics are read from Kafka")
	flags.StringVar(&f.natsURL, "nats-url", nats.DefaultURL, "NATS server to read from, a `URL` or several separated by commas")
	f.nats.add(cmd, natsPrefix)
	flags.StringVar(&f.stream, "stream", "", "`name` of the stream (default: the only one whose name begins with CDC_)")
	flags.BoolVar(&f.fromStart, "from-start", false, "begin with the oldest event that is stored (the default)")
	flags.StringVar(&f.since, "since", "", "begin with what was stored since this `time`: 90s, 2h, or 2026-01-31T15:04:05Z")
	flags.Uint64Var(&f.fromSeq, "from-seq", 0, "begin with this sequence `number` of the stream")
	flags.StringVar(&f.fromLSN, "from-lsn", "", "begin with transactions committed at or after this `LSN`, such as 16/B374D848")
	flags.StringVar(&f.fromPosition, "from-position", "", "begin behind this `position`, which is an event's sequence attribute")
}

// check finds what makes no sense.
func (f *replayFrom) check(a *app, cmd *cobra.Command) []error {
	var faults []error
	switch scheme, _, isURL := strings.Cut(f.source, "://"); {
	case f.source == toNATS:
		faults = append(faults, checkNATSURL("--nats-url", f.natsURL), f.nats.check(a, cmd), a.excluded(cmd, "--from nats", "database"))
	case scheme == kindKafka && isURL:
		faults = append(faults, wrongTarget(f.source), required(cmd, "database"),
			a.excluded(cmd, "--from kafka", append(f.nats.flags(), "nats-url", "stream", "from-seq")...))
	case isURL:
		faults = append(faults, fmt.Errorf("--from: unknown scheme %q: want nats or kafka://host:port", behindUser(scheme)))
	default:
		faults = append(faults, fmt.Errorf("--from: unknown %q: want nats or kafka://host:port", behindUser(f.source)))
	}
	for i, one := range beginnings {
		for _, other := range beginnings[i+1:] {
			faults = append(faults, a.exclude(cmd, one, "there is one place to begin", other))
		}
	}
	return faults
}

// excluded returns a fault for each flag that means nothing here. In the
// environment, which serves several commands, it may stand.
func (a *app) excluded(cmd *cobra.Command, here string, flags ...string) error {
	var faults []error
	for _, name := range flags {
		if cmd.Flag(name).Changed && !a.fromEnv[name] {
			faults = append(faults, fmt.Errorf("--%s is not for %s", name, here))
		}
	}
	return usage(faults...)
}

// A replayStart is a [sinks.Start] that may wait for the source's epoch.
type replayStart struct {
	sinks.Start
	lsn cdc.LSN
}

func (f *replayFrom) start(now time.Time) (s replayStart, err error) {
	s.Sequence = f.fromSeq
	if f.since != "" {
		if s.Time, err = parseSince(f.since, now); err != nil {
			return s, err
		}
	}
	if f.fromLSN != "" {
		if s.lsn, err = cdc.ParseLSN(f.fromLSN); err != nil {
			return s, fmt.Errorf("--from-lsn: %w", err)
		}
	}
	if f.fromPosition != "" {
		if s.After, err = listeners.ParsePosition(f.fromPosition); err != nil {
			return s, fmt.Errorf("--from-position: %w", err)
		}
	}
	s.Oldest = s.IsNow() && s.lsn == 0
	return s, nil
}

// spelled names the beginning that was asked for.
func (f *replayFrom) spelled() string {
	switch {
	case f.fromSeq > 0:
		return fmt.Sprintf("sequence %d", f.fromSeq)
	case f.fromLSN != "":
		return f.fromLSN
	case f.fromPosition != "":
		return f.fromPosition
	}
	return "what was read last"
}

// A replaySource is what is read.
type replaySource struct {
	*sinks.Source
	database string // "" if it holds events of regions
	fresh    bool   // it begins where nothing was dropped
	close    func()
}

// open finds the firehose. It waits for no broker that is away, but for a while
// for Kafka's answer.
func (f *replayFrom) open(ctx context.Context, start replayStart, opts *sinks.SourceOptions) (*replaySource, error) {
	if f.source == toNATS {
		return f.openNATS(ctx, start, opts)
	}
	// A source would wait for brokers that are away, and for topics.
	newest, err := f.newestInKafka(ctx)
	if err != nil {
		return nil, err
	}
	if start.lsn > 0 {
		start.After = beforeLSN(start.lsn, newest)
	}
	opts.Start = start.Start
	source, err := kafka.NewSource(f.source, f.database, opts)
	if err != nil {
		return nil, err
	}
	return &replaySource{Source: source, database: f.database, fresh: start.After.IsZero(), close: func() {}}, nil
}

func (f *replayFrom) newestInKafka(ctx context.Context) (listeners.Position, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, kafka.DefaultOpenTimeout,
		fmt.Errorf("no answer within %s: %w", kafka.DefaultOpenTimeout, context.DeadlineExceeded))
	defer cancel()
	there, err := kafka.Databases(ctx, f.source)
	if err != nil {
		return listeners.Position{}, err
	}
	if !slices.Contains(there, f.database) {
		return listeners.Position{}, f.noTopics(there)
	}
	return kafka.Newest(ctx, f.source, f.database)
}

// noTopics says that there is nothing to read, and what there is instead.
func (f *replayFrom) noTopics(databases []string) error {
	others := `these brokers have such topics of no database; "rowcall run --to kafka://…" makes them`
	if len(databases) > 0 {
		others = fmt.Sprintf("these brokers have such topics of %s; choose one with --database", strings.Join(databases, ", "))
	}
	return fmt.Errorf("there are no topics %s.<schema>.<table> of database %q that this user may see; %s", sinks.DatabaseAddress(f.database), f.database, others)
}

func (f *replayFrom) openNATS(ctx context.Context, start replayStart, opts *sinks.SourceOptions) (_ *replaySource, err error) {
	nc, err := f.nats.connect(f.natsURL, "rowcall replay")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			nc.Close()
		}
	}()
	js, err := f.nats.jetStream(nc)
	if err != nil {
		return nil, err
	}
	info, err := f.find(ctx, js)
	if err != nil {
		return nil, err
	}
	if start.lsn > 0 {
		newest, err := newestPosition(ctx, nc, f.nats.natsPlace, info)
		if err != nil {
			return nil, err
		}
		start.After = beforeLSN(start.lsn, newest)
	}
	opts.Start = start.Start
	source, err := f.nats.source(nc, info.Config.Name, opts)
	if err != nil {
		return nil, err
	}
	return &replaySource{Source: source, database: databaseOfStream(info), fresh: !cut(info), close: nc.Close}, nil
}

// beforeLSN returns the last position before the transactions that were
// committed at or after an LSN, in the epoch of the newest event.
func beforeLSN(lsn cdc.LSN, newest listeners.Position) listeners.Position {
	return listeners.Position{Epoch: newest.Epoch, Commit: uint64(lsn) - 1, Index: math.MaxUint32}
}

func (f *replayFrom) find(ctx context.Context, js natsjs.JetStream) (*natsjs.StreamInfo, error) {
	name := f.stream
	if name == "" {
		names, err := firehoseStreams(ctx, js)
		switch {
		case err != nil:
			return nil, err
		case len(names) == 0:
			return nil, errors.New(`there is no stream whose name begins with CDC_; "rowcall run" creates one, and --stream names another`)
		case len(names) > 1:
			return nil, fmt.Errorf("there are %d streams: %s; choose one with --stream", len(names), strings.Join(names, ", "))
		}
		name = names[0]
	}
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	return stream.CachedInfo(), nil
}

// newestPosition returns the position of a stream's last event.
func newestPosition(ctx context.Context, nc *nats.Conn, at natsPlace, info *natsjs.StreamInfo) (listeners.Position, error) {
	for m, err := range jetstream.Read(ctx, nc, info.Config.Name, &jetstream.ReadOptions{Sequence: info.State.LastSeq, Domain: at.domain, APIPrefix: at.apiPrefix}) {
		return m.Position, err
	}
	return listeners.Position{}, nil
}

// databaseOfStream returns the name of the database whose events a stream
// takes, "" if that is not known.
func databaseOfStream(info *natsjs.StreamInfo) string {
	for _, subject := range info.Config.Subjects {
		tokens := strings.Split(subject, ".")
		if len(tokens) < 2 || tokens[0] != "cdc" {
			continue
		}
		if name, err := sinks.UnescapeToken(tokens[1]); err == nil {
			return name
		}
	}
	return ""
}
