package main

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

// runFlags are the flags of "rowcall run".
type runFlags struct {
	source        *sourceFlags
	log           *logFlags
	nats          natsFlags
	to            *choice
	untilCaughtUp bool
	report        string
	maxRetained   byteSize
	catchUp       byteSize
}

// Where events go.
const (
	toNATS    = "nats"
	toStdout  = "stdout"
	toDiscard = "discard"
)

func (a *app) runCommand() *cobra.Command {
	f := new(runFlags)
	cmd := &cobra.Command{
		Use:   "run --database-url URL",
		Short: "Publish the changes of a database",
		Long: `Run reads the changes that are committed in a PostgreSQL database and publishes
them on NATS JetStream: every change once, in commit order, across restarts.

It creates what it needs and does not find: a publication, a replication slot and
a stream. The first time, it also publishes the rows that are there already.
Without --nats-url a NATS server with JetStream runs inside, on 127.0.0.1:4222.

Interrupt it to stop it; started again it goes on where it was. A slot makes the
database keep what was not read yet: if you do not come back, drop the slot with
"rowcall slots drop".`,
		Example: `  # One table, with a NATS server inside that stores in ./rowcall-data:
  rowcall run --database-url postgres://app@localhost/shop --tables public.seats

  # All tables of two schemas, to a NATS server of yours:
  rowcall run --database-url postgres://app@localhost/shop --tables 'public.*,sales.*' --nats-url nats://nats:4222

  # To another program, one JSON object (CloudEvents 1.0) per line:
  rowcall run --database-url postgres://app@localhost/shop --to stdout | jq .data.after

  # Publish what is new, then leave:
  rowcall run --database-url postgres://app@localhost/shop --until-caught-up --report report.json`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd, f) },
	}
	f.source = addSourceFlags(cmd)
	f.to = newChoice(toNATS, toNATS, toStdout, toDiscard)
	cmd.Flags().Var(f.to, "to", "where the events go")
	f.nats.add(cmd)
	cmd.Flags().BoolVar(&f.untilCaughtUp, "until-caught-up", false,
		"end once everything that was committed at the start is stored")
	cmd.Flags().StringVar(&f.report, "report", "", "write at the end what was done, as JSON, to this `file`")
	cmd.Flags().Var(&f.maxRetained, "max-retained-wal", "warn in the log when the slot keeps more WAL than this, such as 10GB (default: off)")
	f.catchUp = 64 << 20
	cmd.Flags().Var(&f.catchUp, "catch-up-bytes", "read a larger backlog than this with SQL functions, which is faster; 0 to stream always")
	f.log = addLogFlags(cmd)
	return cmd
}

func (a *app) run(cmd *cobra.Command, f *runFlags) (err error) {
	began := time.Now()
	bar := isTerminal(a.stderr) && !f.log.json()
	show, logger, logErr := newProgress(a.stderr, bar, f.log.logger)
	opts := f.source.options()
	opts.Logger, opts.Progress = logger, show.show
	opts.MaxRetainedWAL = int64(f.maxRetained)
	if opts.CatchUpBytes = int64(f.catchUp); f.catchUp == 0 {
		opts.CatchUpBytes = -1
	}

	faults := []error{
		logErr,
		required(cmd, "database-url"),
		a.exclude(cmd, "nats-url", "with it, no NATS server runs inside", "nats-port", "data-dir"),
		f.nats.check(),
		a.needs(cmd, "nats-creds", "nats-url"),
		checkReport(f.report),
	}
	if f.to.value != toNATS {
		faults = append(faults, a.exclude(cmd, "to", "nothing goes to NATS", "nats-url", "nats-creds", "nats-port", "data-dir"))
	}
	var source *cdc.Source
	if f.source.url != "" {
		var sourceErr error
		source, sourceErr = cdc.New(f.source.url, opts)
		faults = append(faults, sourceErr)
	}
	if err := usage(faults...); err != nil {
		return err
	}

	out := &announcer{w: show, log: logger, json: f.log.json()}
	if err := source.Check(cmd.Context()); err != nil { // before a stream or a data directory exists
		return f.unlessInterrupted(cmd.Context(), err)
	}
	dest, err := a.openDestination(cmd.Context(), f, source, logger, out)
	if err != nil {
		return f.unlessInterrupted(cmd.Context(), err)
	}
	defer func() { err = errors.Join(err, dest.close()) }()
	sub, err := source.Subscribe(dest.name, dest.listener, nil)
	if err != nil {
		return err
	}
	err = f.stream(cmd.Context(), source, sub, dest, out)
	show.end()
	if f.report != "" {
		err = errors.Join(err, writeReport(f.report, newReport(source.Stats(), sub.Stored(), time.Since(began))))
	}
	return err
}

// Why a run was stopped from inside.
var (
	errCaughtUp   = errors.New("caught up")
	errSubEnded   = errors.New("the subscription has ended")
	errReaderGone = errors.New("nobody reads standard output any more")
)

// stream runs the source until it ends, the caller's context ends, the
// destination fails, or everything is caught up. Nothing it started runs any
// more when it returns.
func (f *runFlags) stream(parent context.Context, source *cdc.Source, sub *listeners.Subscription, dest *destination, out *announcer) error {
	ctx, cancel := context.WithCancelCause(parent)
	var watchers sync.WaitGroup
	watchers.Go(func() {
		select {
		case <-sub.Done():
			cancel(errSubEnded) // it may have an error of its own
		case <-dest.gone:
			cancel(errReaderGone)
		case <-ctx.Done():
		}
	})
	watchers.Go(func() {
		select {
		case <-source.Ready():
		case <-ctx.Done():
			return
		}
		out.reading(source, f.source.snapshot.value == string(cdc.SnapshotOnly))
		if f.untilCaughtUp {
			cancel(cmp.Or(source.CaughtUp(ctx), errCaughtUp))
		}
	})
	err := source.Run(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	watchers.Wait()

	switch {
	case sub.Err() != nil:
		return sub.Err()
	case err != nil:
		return err
	case cause == nil || errors.Is(cause, errCaughtUp) || errors.Is(cause, errSubEnded):
		return nil
	case parent.Err() == nil:
		return cause
	}
	return f.unlessInterrupted(parent, nil)
}

// unlessInterrupted returns err, unless the user wanted the end. That is an
// error only for a run that was to end by itself.
func (f *runFlags) unlessInterrupted(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case f.untilCaughtUp || f.source.snapshot.value == string(cdc.SnapshotOnly):
		return errors.New("interrupted before everything was stored")
	}
	return nil
}
