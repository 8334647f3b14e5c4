package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/tablename"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// openTimeout bounds the wait for a destination before a run.
const openTimeout = 30 * time.Second

// A destination is where the events of a run go.
type destination struct {
	name     string // of the subscription
	options  *targetOptions
	link     *natsLink // of what can be a journal only, as are the next two
	stream   string
	at       natsPlace
	listener listeners.Listener
	sub      *listeners.Subscription // nil before it is made
	guard    *gapGuard               // of a replay only
	empty    func() bool             // of what keeps the latest state: nothing is stored there
	gone     <-chan struct{}         // closed when nobody takes events any more; nil if that cannot happen
	closers  []func() error          // in the order of opening
}

// close releases what was opened, last first.
func (d *destination) close() error {
	var errs []error
	for _, closer := range slices.Backward(d.closers) {
		errs = append(errs, closer())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// subscribeOptions returns what of the events it gets; where is the condition of
// the whole run.
func (d *destination) subscribeOptions(where *whereFlag) *listeners.SubscribeOptions {
	opts := &listeners.SubscribeOptions{FilterTx: where.and(&d.options.where)}
	if tables := d.options.tables; len(tables) > 0 {
		opts.Filter = func(e *listeners.Event) bool {
			return slices.ContainsFunc(tables, func(p tablename.Pattern) bool { return p.Matches(e.Schema.Namespace, e.Schema.Name) })
		}
	}
	return opts
}

func closeAll(dests []*destination) error {
	var errs []error
	for _, d := range dests {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// stored returns the position up to which all destinations have stored.
func stored(dests []*destination, fed []*follower) listeners.Position {
	least := dests[0].sub.Stored()
	for _, d := range dests[1:] {
		least = earlier(least, d.sub.Stored())
	}
	for _, one := range fed {
		least = earlier(least, one.stored())
	}
	return least
}

func earlier(a, b listeners.Position) listeners.Position {
	if b.Compare(a) < 0 {
		return b
	}
	return a
}

// openDestinations opens what the flags ask for, but for those that the journal
// feeds. The caller closes them, after the source that writes to them has
// stopped. On error nothing stays open.
func (a *app) openDestinations(ctx context.Context, f *runFlags, source *cdc.Source, log *slog.Logger, out *announcer) (dests []*destination, fed []*follower, err error) {
	for i, to := range f.to.list {
		o := f.to.at(i)
		d := &destination{name: o.called(), options: o}
		open := func(ctx context.Context, d *destination) error {
			return a.open(ctx, d, to, &f.nats, source.Database(), log, out)
		}
		if f.journaling && fedByJournal(to) {
			fed = append(fed, &follower{destination: d, open: open})
			continue
		}
		dests = append(dests, d)
		if err := open(ctx, d); err != nil {
			return nil, nil, errors.Join(err, closeAll(dests))
		}
	}
	j := f.newJournal(dests, log)
	for _, one := range fed {
		one.journal = j
		out.say(fmt.Sprintf("%s is fed from stream %s, from where it was", one.name, j.stream), "journal", "to", one.name, "stream", j.stream)
	}
	return dests, fed, nil
}

// open opens one destination. On error its closers are for the caller.
func (a *app) open(ctx context.Context, d *destination, to string, f *natsFlags, database string, log *slog.Logger, out *announcer) error {
	switch to {
	case toStdout:
		d.openStdout(ctx, a)
	case toDiscard:
		d.listener = listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
	case toNATS:
		return d.openNATS(ctx, f, database, log, out)
	default:
		if isAMQP(to) {
			return d.openRabbitMQ(ctx, to, database, log, out)
		}
		return d.openKafka(ctx, to, database, log, out)
	}
	return nil
}

func (d *destination) openStdout(ctx context.Context, a *app) {
	watch, cancel := context.WithCancel(ctx)
	gone, wait := readerGone(watch, a.stdout)
	d.listener, d.gone = newLineSink(a.stdout), gone
	d.closers = append(d.closers, func() error { cancel(); wait(); return nil })
}

func (d *destination) openKafka(ctx context.Context, brokers, database string, log *slog.Logger, out *announcer) error {
	opts, brokers, err := d.options.kafkaOptions(brokers, log)
	if err != nil {
		return err
	}
	firehose, err := d.options.newKafka(brokers, database, opts)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { firehose.Close(); return nil })
	d.listener, d.empty = firehose, firehose.Empty

	what, topics := "events go", firehose.Name()+".<schema>.<table>"
	if d.options.latest {
		what = "the latest state goes"
	}
	out.say(fmt.Sprintf("%s to Kafka at %s: topics %s", what, firehose.Where(), topics),
		"publishing", "kafka", firehose.Where(), "topics", topics)
	return nil
}

func (d *destination) openNATS(ctx context.Context, f *natsFlags, database string, log *slog.Logger, out *announcer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer from NATS within %s", openTimeout))
	defer cancel()
	link, err := f.join(ctx, log)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { f.leave(); return nil })
	opts := d.options.jetstreamOptions(log)
	opts.Domain, opts.APIPrefix = f.login.domain, f.login.apiPrefix
	firehose, err := d.options.newNATS(link, database, opts)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { firehose.Close(); return nil })
	d.listener, d.empty = firehose, func() bool { return firehose.Stored().IsZero() }
	if d.options.latest {
		announceBucket(out, link, firehose.Name())
		return nil
	}
	d.link, d.stream, d.at = link, firehose.Name(), f.login.natsPlace

	shown := withoutUserInfo(link.address)
	subjects := sinks.DatabaseAddress(database) + ".>"
	option := ""
	if shown != nats.DefaultURL {
		option = " --nats-url " + shown
	}
	out.say(fmt.Sprintf("events go to %s%s: stream %s, subjects %s\nread them with nats sub '%s'%s   or   rowcall tail%s",
		shown, link.where, firehose.Name(), subjects, subjects, strings.Replace(option, "--nats-url", "--server", 1), option),
		"publishing", "nats", shown, "stream", firehose.Name(), "subjects", subjects)
	return nil
}

// announceBucket says where the latest state is. The stream is the bucket's.
func announceBucket(out *announcer, link *natsLink, stream string) {
	shown, bucket := withoutUserInfo(link.address), strings.TrimPrefix(stream, jetstream.LatestStream(""))
	option := ""
	if shown != nats.DefaultURL {
		option = " --server " + shown
	}
	out.say(fmt.Sprintf("the latest state goes to %s%s: bucket %s\nread it with nats kv watch %s%s", shown, link.where, bucket, bucket, option),
		"publishing", "nats", shown, "bucket", bucket)
}

// withoutUserInfo returns a list of URLs without users, passwords and tokens.
// They have been checked before.
func withoutUserInfo(urls string) string {
	var shown []string
	for one := range strings.SplitSeq(urls, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		if u, err := url.Parse(one); err == nil {
			u.User = nil
			shown = append(shown, u.String())
		}
	}
	return strings.Join(shown, ",")
}
