package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/sinks"
)

// replayFlags are the flags of "rowcall replay".
type replayFlags struct {
	from     replayFrom
	to       *targets
	toNATS   natsFlags // the server to write to, which is never one inside
	toStream string
	tables   tableList
	where    whereFlag
	follow   bool
	log      *logFlags
}

func (a *app) replayCommand() *cobra.Command {
	f := &replayFlags{to: newTargets(toStdout)}
	cmd := &cobra.Command{
		Use:   "replay --from SOURCE --to PLACE",
		Short: "Read stored events again, and pass them on",
		Long: `Replay reads a firehose again, as it is stored: all of it, or from a place on, and
passes whole transactions on, in their order, to standard output or to other
brokers. It ends where the firehose ends at the start, unless --follow says
otherwise. The events keep their ids.

NATS and Kafka get each event once: the stream or the topics say what they hold
already, and only what lies behind that is stored. So a replay that was interrupted
can be run again, and what is older than the end of a topic cannot be put before it.
A topic or a stream has one writer: stop the "rowcall run" that writes to the same
place first, or the two put each other out.

RabbitMQ does not say what it has: a replay publishes everything there, again each
time, with the same ids, by which its readers know what they had already.

If what --from-seq, --from-lsn or --from-position names is gone, that is an error;
--from-start takes what there is. Brokers that do not answer within 30 seconds at
the start are an error; later, a replay waits until they are back.

Places are words and URLs only. A file of settings (--config) and ROWCALL_TO are for
"rowcall run": its places are those that a run writes to, and a replay beside it
must not.`,
		Example: `  # The last two hours, as CloudEvents:
  rowcall replay --since 2h | jq .data.after

  # A new Kafka gets the history of some tables:
  rowcall replay --from nats --to kafka://localhost:9092 --tables 'sales.*'

  # Out of Kafka again:
  rowcall replay --from kafka://localhost:9092 --database shop --since 2h

  # Another NATS server follows:
  rowcall replay --to nats --to-nats-url nats://backup:4222 --follow

  # What a transaction has done, and all since:
  rowcall replay --from-lsn 16/B374D848 --where 'op == "delete"'`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.replay(cmd, f) },
	}
	f.from.add(cmd)
	flags := cmd.Flags()
	flags.Var(f.to, "to", "where the events go: stdout, nats or the URL of a broker; may be given several times")
	flags.StringVar(&f.toNATS.url, "to-nats-url", "", "NATS server that --to nats writes to, a `URL` or several separated by commas")
	f.toNATS.login.add(cmd, "to-nats-")
	flags.StringVar(&f.toStream, "to-stream", "", "`name` of the stream that --to nats writes to (default: CDC_ and the database's name)")
	flags.Var(&f.tables, "tables", "only these: table, schema.table or schema.*, separated by commas (default: all)")
	flags.Var(&f.where, "where", whereUsage)
	flags.BoolVar(&f.follow, "follow", false, "go on with what is stored from now on, until interrupted")
	f.log = addLogFlags(cmd)
	return cmd
}

func (a *app) replay(cmd *cobra.Command, f *replayFlags) (err error) {
	if a.fromEnv["to"] {
		reset(cmd.Flag("to"))
	}
	show, logger, err := newReplayProgress(a, f.log)
	faults := append(f.from.check(a, cmd), err, f.to.check(a.spelling("to")), f.checkTo(a, cmd))
	options, tablesErr := f.options()
	start, startErr := f.from.start(time.Now())
	if err := usage(append(faults, tablesErr, startErr)...); err != nil {
		return err
	}
	ctx := cmd.Context()
	source, err := f.from.open(ctx, start, &sinks.SourceOptions{UntilTip: !f.follow, Logger: logger})
	if err != nil {
		return unlessOver(ctx, f.follow, err)
	}
	defer source.close()
	dests, err := a.openReplayed(ctx, f, source, options, logger, &announcer{w: show, log: logger, json: f.log.json()})
	defer func() { err = errors.Join(err, closeAll(dests)) }()
	if err != nil {
		return unlessOver(ctx, f.follow, err)
	}
	err = a.pump(ctx, f, source, dests, show)
	return unlessOver(ctx, f.follow, err)
}

// unlessOver returns err, unless the user wanted the end. That is an error only
// for a replay that was to end by itself.
func unlessOver(ctx context.Context, follow bool, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case follow:
		return nil
	}
	return errors.New("interrupted before everything was replayed; run it again: NATS and Kafka then get the rest, other places everything again")
}

// checkTo finds what makes no sense about the places.
func (f *replayFlags) checkTo(a *app, cmd *cobra.Command) error {
	var faults []error
	switch {
	case f.to.hasNATS() && f.toNATS.url == "":
		faults = append(faults, errors.New("--to nats needs --to-nats-url: another server, or another account, than the one that is read, since one subject belongs to one stream"))
	case f.toNATS.url != "":
		faults = append(faults, checkNATSURL("--to-nats-url", f.toNATS.url), f.toNATS.login.check(a, cmd))
	}
	if !f.to.hasNATS() {
		faults = append(faults, a.excluded(cmd, "--to "+f.to.String(), append(f.toNATS.login.flags(), "to-nats-url", "to-stream")...))
	}
	return usage(faults...)
}

// options returns what of the events each place gets.
func (f *replayFlags) options() (*targetOptions, error) {
	o := new(targetOptions)
	o.jetstream.Stream = f.toStream
	var faults []error
	for _, t := range f.tables.tables {
		p, err := parseTable(t)
		o.tables, faults = append(o.tables, p), append(faults, err)
	}
	return o, usage(faults...)
}

// openReplayed opens the places and subscribes them. The caller closes them,
// also after an error.
func (a *app) openReplayed(ctx context.Context, f *replayFlags, source *replaySource, options *targetOptions, log *slog.Logger, out *announcer) (dests []*destination, err error) {
	for _, to := range f.to.list {
		if source.database == "" && to != toStdout && to != toDiscard {
			return dests, fmt.Errorf("%s holds no events of a database; those of regions can only be replayed to standard output", source.Name())
		}
		d := &destination{name: targetKind(to), options: options}
		dests = append(dests, d)
		if err := a.open(ctx, d, to, &f.toNATS, source.database, log, out); err != nil {
			return dests, err
		}
		d.guard = &gapGuard{listener: d.listener, stream: source.Name(), name: d.name, fresh: source.fresh}
		if d.sub, err = source.Subscribe(d.name, d.guard.durable(), d.subscribeOptions(&f.where)); err != nil {
			return dests, err
		}
	}
	return dests, nil
}

// pump runs the source and shows how far it is.
func (a *app) pump(parent context.Context, f *replayFlags, source *replaySource, dests []*destination, show *replayProgress) error {
	ctx, cancel := context.WithCancelCause(parent)
	stop := show.watch(ctx, source.Source, dests)
	var watchers sync.WaitGroup
	for _, d := range dests {
		watchers.Go(func() {
			select {
			case <-d.gone:
				cancel(errReaderGone)
			case <-d.sub.Done():
				cancel(errSubsEnded) // a source runs on without its subscriptions
			case <-ctx.Done():
			}
		})
	}
	err := source.Run(ctx)
	ranOut := context.Cause(ctx) == nil || errors.Is(context.Cause(ctx), errSubsEnded)
	cancel(nil)
	watchers.Wait()
	stop()
	for _, d := range dests {
		if failed := d.sub.Err(); failed != nil {
			err = failed
		}
	}
	if gap, ok := errors.AsType[*gapError](err); ok {
		return fmt.Errorf("%s no longer holds what follows %s; --from-start begins with what it holds", gap.stream, f.from.spelled())
	}
	if _, ok := errors.AsType[*sinks.HistoryError](err); ok {
		return fmt.Errorf("%s no longer holds what follows %s; --from-start begins with what it holds: %w", source.Name(), f.from.spelled(), err)
	}
	if err == nil && ranOut {
		show.end(dests)
	}
	return explainWhere(err)
}
