package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

// runFlags are the flags of "rowcall run".
type runFlags struct {
	source        *sourceFlags
	reading       streamFlags
	log           *logFlags
	nats          natsFlags
	to            *targets
	untilCaughtUp bool
	report        string
	slot          *slotFlags
	where         whereFlag
	journal       bool // only if the flag was given
	journaling    bool
}

func (a *app) runCommand() *cobra.Command {
	cmd, _ := a.newRunCommand()
	return cmd
}

func (a *app) newRunCommand() (*cobra.Command, *runFlags) {
	f := new(runFlags)
	cmd := &cobra.Command{
		Use:   "run --database-url URL",
		Short: "Publish the changes of a database",
		Long: `Run reads the changes that are committed in a PostgreSQL database and publishes
them on NATS JetStream: every change once, in commit order, across restarts.

It creates what it needs and does not find: a publication, a replication slot and
a stream. The first time, it also publishes the rows that are there already.
Without --nats-url a NATS server with JetStream runs inside, on 127.0.0.1:4222.

Events can go to several places. If NATS is one of them, its stream is the journal
of the other brokers: each reads it at its own pace, so one that is slow or away
holds up neither the slot nor the others. --journal=false feeds all from the slot.

Interrupt it to stop it; started again it goes on where it was. If the slot is not
the one that it left, changes are lost, and --lost-slot says what then. A slot makes the
database keep what was not read yet: if you do not come back, drop the slot with
"rowcall slots drop".`,
		Example: `  # One table, with a NATS server inside that stores in ./rowcall-data:
  rowcall run --database-url postgres://app@localhost/shop --tables public.seats

  # All tables of two schemas, to a NATS server of yours:
  rowcall run --database-url postgres://app@localhost/shop --tables 'public.*,sales.*' --nats-url nats://nats:4222

  # Some of the events only, by an expression:
  rowcall run --database-url postgres://app@localhost/shop --where 'collection == "public.seats" and op == "update" and changed("price")'

  # To Kafka, a topic for each table:
  rowcall run --database-url postgres://app@localhost/shop --to kafka://localhost:9092

  # To another program, one JSON object (CloudEvents 1.0) per line:
  rowcall run --database-url postgres://app@localhost/shop --to stdout | jq .data.after

  # To both; a Kafka that is away for hours stops nothing, and gets everything later:
  rowcall run --database-url postgres://app@localhost/shop --to nats --to kafka://localhost:9092

  # With settings from a file, and the database's URL from the command line:
  rowcall run --config rowcall.yaml --database-url postgres://app@localhost/shop

  # Publish what is new, then leave:
  rowcall run --database-url postgres://app@localhost/shop --until-caught-up --report report.json`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd, f) },
	}
	f.source = addSourceFlags(cmd)
	f.to = newTargets(toNATS)
	cmd.Flags().Var(f.to, "to", "where the events go; may be given several times")
	cmd.Flags().Var(&f.where, "where", whereUsage)
	cmd.Flags().BoolVar(&f.journal, "journal", false, journalUsage)
	f.nats.add(cmd)
	cmd.Flags().BoolVar(&f.untilCaughtUp, "until-caught-up", false,
		"end once everything that was committed at the start is stored")
	cmd.Flags().StringVar(&f.report, "report", "", "write at the end what was done, as JSON, to this `file`")
	f.slot = addSlotFlags(cmd)
	f.reading.add(cmd)
	f.log = addLogFlags(cmd)
	addConfigFlag(cmd)
	return cmd, f
}

func (a *app) run(cmd *cobra.Command, f *runFlags) (err error) {
	began := time.Now()
	bar := isTerminal(a.stderr) && !f.log.json()
	show, logger, logErr := newProgress(a.stderr, bar, f.log.logger)
	opts := f.options()
	opts.Logger, opts.Progress = logger, show.show
	source, err := a.checkRun(cmd, f, opts, logErr)
	if err != nil {
		return err
	}

	out := &announcer{w: show, log: logger, json: f.log.json()}
	if err := source.Check(cmd.Context()); err != nil { // before a stream or a data directory exists
		return f.unlessInterrupted(cmd.Context(), err)
	}
	dests, fed, err := a.openDestinations(cmd.Context(), f, source, logger, out)
	if err != nil {
		return f.unlessInterrupted(cmd.Context(), err)
	}
	defer func() { err = errors.Join(err, closeAll(dests)) }()
	for _, d := range dests {
		how := d.subscribeOptions(&f.where)
		d.joins(how, cmp.Or(f.slot.stateDir, f.nats.dataDir), source.Database())
		if d.sub, err = source.Subscribe(d.name, d.listener, how); err != nil {
			return err
		}
	}
	err = f.stream(cmd.Context(), source, dests, fed, logger, out)
	show.end()
	if f.report != "" {
		r := newReport(source.Stats(), stored(dests, fed), time.Since(began))
		r.addSlot(cmd.Context(), source)
		err = errors.Join(err, writeReport(f.report, r))
	}
	return err
}

// options returns what the flags say of the source.
func (f *runFlags) options() *cdc.Options {
	opts := f.source.options()
	f.slot.apply(opts, f.nats.dataDir)
	f.reading.apply(opts)
	return opts
}

// checkRun finds everything that makes no sense before anything is touched.
func (a *app) checkRun(cmd *cobra.Command, f *runFlags, opts *cdc.Options, others ...error) (source *cdc.Source, err error) {
	faults := append(slices.Clone(others),
		required(cmd, "database-url"),
		a.exclude(cmd, "nats-url", "with it, no NATS server runs inside", "nats-port", "data-dir"),
		f.to.check(a.spelling("to")),
		f.nats.check(),
		a.checkLogin(cmd, &f.nats),
		checkReport(f.report),
		a.checkJournal(cmd, f),
	)
	if !f.to.hasNATS() {
		faults = append(faults, a.exclude(cmd, "to", "nothing goes to NATS", append(f.nats.login.flags(), "nats-url", "nats-port", "data-dir")...))
	}
	if f.source.url != "" {
		source, err = cdc.New(f.source.url, opts)
		faults = append(faults, err)
	}
	return source, usage(faults...)
}

// Why a run was stopped from inside.
var (
	errCaughtUp   = errors.New("caught up")
	errSubsEnded  = errors.New("no destination is left")
	errReaderGone = errors.New("nobody reads standard output any more")
)

// stream runs the source until it ends, the caller's context ends, no
// destination is left, or everything is caught up. Nothing it started runs any
// more when it returns.
func (f *runFlags) stream(parent context.Context, source *cdc.Source, dests []*destination, fed []*follower, log *slog.Logger, out *announcer) error {
	ctx, cancel := context.WithCancelCause(parent)
	var watchers sync.WaitGroup
	var left atomic.Int32
	left.Store(int32(len(dests)))
	for _, d := range dests {
		watchers.Go(func() {
			why := errSubsEnded // its subscription has the error
			select {
			case <-d.sub.Done():
			case <-d.gone:
				why = errReaderGone
			case <-ctx.Done():
				return
			}
			if left.Add(-1) == 0 {
				cancel(why)
				return
			}
			if err := d.sub.Err(); err != nil {
				log.ErrorContext(ctx, "a destination has failed; the others go on, and the slot keeps what it has not stored", "to", d.name, "error", err)
			}
			d.sub.Close()
		})
	}
	watchers.Go(func() {
		select {
		case <-source.Ready():
		case <-ctx.Done():
			return
		}
		out.reading(source, f.source.snapshot.value == string(cdc.SnapshotOnly))
		if f.untilCaughtUp {
			cancel(cmp.Or(caughtUp(ctx, source, dests), errCaughtUp))
		}
	})
	followed := &followers{all: fed, log: log}
	if !f.ends() {
		followed.start(ctx, false)
	}
	err := source.Run(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	watchers.Wait()
	if f.ends() && err == nil && parent.Err() == nil {
		followed.start(parent, true) // now the journal holds all that they are to get
	}
	failed := slices.Clone(followed.wait())
	for _, d := range dests {
		failed = append(failed, explainWhere(d.sub.Err()))
	}
	switch failure := errors.Join(failed...); {
	case failure != nil:
		return failure
	case err != nil:
		return err
	case parent.Err() != nil && len(fed) > 0: // maybe while they were fed
		return f.unlessInterrupted(parent, nil)
	case cause == nil || errors.Is(cause, errCaughtUp) || errors.Is(cause, errSubsEnded):
		return nil
	case parent.Err() == nil:
		return cause
	}
	return f.unlessInterrupted(parent, nil)
}

// ends reports whether a run ends by itself.
func (f *runFlags) ends() bool {
	return f.untilCaughtUp || f.source.snapshot.value == string(cdc.SnapshotOnly)
}

// unlessInterrupted returns err, unless the user wanted the end. That is an
// error only for a run that was to end by itself.
func (f *runFlags) unlessInterrupted(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case f.ends():
		return errors.New("interrupted before everything was stored")
	}
	return nil
}
