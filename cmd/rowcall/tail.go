package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

// tailFlags are the flags of "rowcall tail".
type tailFlags struct {
	natsURL   string
	nats      natsLogin
	stream    string
	fromStart bool
	since     string
	fromSeq   uint64
	fromLSN   string
	json      bool
	noFollow  bool
	count     uint64
	where     whereFlag
}

func (a *app) tailCommand() *cobra.Command {
	f := new(tailFlags)
	cmd := &cobra.Command{
		Use:   "tail [TABLE…]",
		Short: "Show events as they are stored",
		Long: `Tail follows the stream that "rowcall run" writes: all of it, or the tables that
are named. A table is written schema.table, schema.* or, in schema public, just
table. Without a --from flag or --since it begins with the next event.

Each line shows when the change was committed, what it was, the table and the key,
and the columns. Where PostgreSQL sent the old row of an update (REPLICA IDENTITY
FULL), those that changed are shown, with the old value.

A condition given with --where leaves other events out. It is that of "rowcall run", but
for times: what is stored has them as texts, such as after.sold > "2026-01-31T15:04".`,
		Example: `  rowcall tail
  rowcall tail seats bookings --from-start
  rowcall tail 'sales.*' --since 2h --json | jq .data.after
  rowcall tail seats --where 'op == "delete" or after.price > 30'
  rowcall tail seats --from-lsn 16/B374D848 --no-follow`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.tail(cmd, f, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.natsURL, "nats-url", nats.DefaultURL, "NATS server, a `URL` or several separated by commas")
	f.nats.add(cmd, natsPrefix)
	flags.StringVar(&f.stream, "stream", "", "`name` of the stream (default: the only one whose name begins with CDC_)")
	flags.BoolVar(&f.fromStart, "from-start", false, "begin with the oldest event that is stored")
	flags.StringVar(&f.since, "since", "", "begin with what was stored since this `time`: 90s, 2h, or 2026-01-31T15:04:05Z")
	flags.Uint64Var(&f.fromSeq, "from-seq", 0, "begin with this sequence `number` of the stream")
	flags.StringVar(&f.fromLSN, "from-lsn", "", "begin with transactions committed at or after this `LSN`, such as 16/B374D848")
	flags.BoolVar(&f.json, "json", false, "print each event as one line of JSON (a CloudEvent)")
	flags.BoolVar(&f.noFollow, "no-follow", false, "end where the stream ends at the start")
	flags.Var(&f.where, "where", whereUsage)
	flags.Uint64Var(&f.count, "count", 0, "end after this `number` of events")
	return cmd
}

func (a *app) tail(cmd *cobra.Command, f *tailFlags, tables []string) error {
	from := []string{"from-start", "since", "from-seq", "from-lsn"}
	filters, tablesErr := filterSubjects(tables)
	faults := []error{tablesErr, checkNATSURL("--nats-url", f.natsURL), f.nats.check(a, cmd)}
	for i, one := range from {
		for _, other := range from[i+1:] {
			faults = append(faults, a.exclude(cmd, one, "there is one place to begin", other))
		}
	}
	start, err := f.start(time.Now())
	if err := usage(append(faults, err)...); err != nil {
		return err
	}

	ctx := cmd.Context()
	nc, err := f.nats.connect(f.natsURL, "rowcall tail")
	if err != nil {
		return err
	}
	defer nc.Close()
	err = a.follow(ctx, nc, f, start, filters)
	if ctx.Err() != nil {
		return nil // the user wanted the end
	}
	return err
}

// A tailStart says where to begin; zero is at the end.
type tailStart struct {
	oldest bool
	seq    uint64
	time   time.Time
	lsn    cdc.LSN
}

func (f *tailFlags) start(now time.Time) (s tailStart, err error) {
	s.oldest, s.seq = f.fromStart, f.fromSeq
	if f.since != "" {
		if s.time, err = parseSince(f.since, now); err != nil {
			return s, err
		}
	}
	if f.fromLSN != "" {
		if s.lsn, err = cdc.ParseLSN(f.fromLSN); err != nil {
			return s, fmt.Errorf("--from-lsn: %w", err)
		}
	}
	return s, nil
}

// parseSince takes a duration before now, or a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return time.Time{}, fmt.Errorf("--since %q: it lies in the future", s)
		}
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q: want a duration such as 90s or 2h, or a time such as 2026-01-31T15:04:05Z", s)
}

// errCounted ends the loop of follow after --count events.
var errCounted = errors.New("counted")

// follow prints events until ctx ends, or the flags say that it is enough.
func (a *app) follow(ctx context.Context, nc *nats.Conn, f *tailFlags, start tailStart, filters []string) error {
	js, err := f.nats.jetStream(nc)
	if err != nil {
		return err
	}
	stream, err := a.findStream(ctx, js, f.stream)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	config := natsjs.OrderedConsumerConfig{FilterSubjects: filters}
	switch {
	case start.oldest:
		config.DeliverPolicy = natsjs.DeliverAllPolicy
	case !start.time.IsZero():
		config.DeliverPolicy, config.OptStartTime = natsjs.DeliverByStartTimePolicy, &start.time
	default:
		config.DeliverPolicy = natsjs.DeliverByStartSequencePolicy
		config.OptStartSeq = info.State.LastSeq + 1
		if start.seq > 0 {
			config.OptStartSeq = start.seq
		}
		if start.lsn > 0 {
			if config.OptStartSeq, err = sequenceOf(ctx, nc, f.nats.natsPlace, info, start.lsn); err != nil {
				return err
			}
		}
	}
	if f.noFollow && (info.State.Msgs == 0 || config.OptStartSeq > info.State.LastSeq) {
		return nil
	}
	fmt.Fprintf(a.stderr, "following stream %s at %s\n", info.Config.Name, withoutUserInfo(f.natsURL))
	printer := a.newTailPrinter(f.json, start != tailStart{})
	printer.where = f.where.filter
	err = each(ctx, js, info, config, f.noFollow, func(m natsjs.Msg, sequence uint64) error {
		if err := printer.print(m, sequence); err != nil {
			return err
		}
		if f.count > 0 && printer.printed == f.count {
			return errCounted
		}
		return nil
	})
	if errors.Is(err, errCounted) {
		return nil
	}
	return err
}

// each calls do for each message until it returns an error, ctx ends, or, if
// once is true, the stream's end as of info was reached.
func each(ctx context.Context, js natsjs.JetStream, info *natsjs.StreamInfo, config natsjs.OrderedConsumerConfig, once bool, do func(natsjs.Msg, uint64) error) error {
	consumer, err := js.OrderedConsumer(ctx, info.Config.Name, config)
	if err != nil {
		return err
	}
	if once {
		if state, err := consumer.Info(ctx); err != nil || state.NumPending == 0 {
			return err
		}
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		m, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if err := do(m, meta.Sequence.Stream); err != nil {
			return err
		}
		if once && (meta.NumPending == 0 || meta.Sequence.Stream >= info.State.LastSeq) {
			return nil
		}
	}
}
