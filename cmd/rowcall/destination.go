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
	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// openTimeout bounds the wait for a destination before a run.
const openTimeout = 30 * time.Second

// A destination is where the events of a run go.
type destination struct {
	name     string // of the subscription
	listener listeners.Listener
	sub      *listeners.Subscription // nil before it is made
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

// subscribeOptions returns what of the events it gets.
func (d *destination) subscribeOptions(f *runFlags) *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{FilterTx: f.where.and(new(whereFlag))}
}

func closeAll(dests []*destination) error {
	var errs []error
	for _, d := range dests {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// stored returns the position up to which all destinations have stored.
func stored(dests []*destination) listeners.Position {
	least := dests[0].sub.Stored()
	for _, d := range dests[1:] {
		if at := d.sub.Stored(); at.Compare(least) < 0 {
			least = at
		}
	}
	return least
}

// openDestinations opens what the flags ask for. The caller closes them, after
// the source that writes to them has stopped. On error nothing stays open.
func (a *app) openDestinations(ctx context.Context, f *runFlags, source *cdc.Source, log *slog.Logger, out *announcer) ([]*destination, error) {
	var dests []*destination
	for _, to := range f.to.list {
		d := &destination{name: to}
		dests = append(dests, d)
		var err error
		switch to {
		case toStdout:
			d.openStdout(ctx, a)
		case toDiscard:
			d.listener = listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
		case toNATS:
			d.name = "firehose"
			err = d.openNATS(ctx, &f.nats, source, log, out)
		default:
			d.name = "kafka"
			err = d.openKafka(ctx, to, source, log, out)
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(dests))
		}
	}
	return dests, nil
}

func (d *destination) openStdout(ctx context.Context, a *app) {
	watch, cancel := context.WithCancel(ctx)
	gone, wait := readerGone(watch, a.stdout)
	d.listener, d.gone = newLineSink(a.stdout), gone
	d.closers = append(d.closers, func() error { cancel(); wait(); return nil })
}

func (d *destination) openKafka(ctx context.Context, brokers string, source *cdc.Source, log *slog.Logger, out *announcer) error {
	firehose, err := kafka.New(brokers, source.Database(), &kafka.Options{Logger: log})
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { firehose.Close(); return nil })
	d.listener = firehose

	topics := sinks.DatabaseAddress(source.Database()) + ".<schema>.<table>"
	out.say(fmt.Sprintf("events go to Kafka at %s: topics %s", firehose.Where(), topics),
		"publishing", "kafka", firehose.Where(), "topics", topics)
	return nil
}

func (d *destination) openNATS(ctx context.Context, f *natsFlags, source *cdc.Source, log *slog.Logger, out *announcer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer from NATS within %s", openTimeout))
	defer cancel()
	opts := &jetstream.ConnectOptions{}
	address, where := f.url, ""
	if f.url != "" {
		opts.CredentialsFile = f.creds
	} else {
		server, err := natsserver.Start(ctx, &natsserver.Options{Port: f.port, Dir: f.dataDir, Logger: log})
		if err != nil {
			return err
		}
		d.closers = append(d.closers, func() error { server.Stop(); return nil })
		opts.InProcess = server
		address, where = server.URL(), ", a server inside that stores in "+f.dataDir
	}
	nc, err := jetstream.Connect(address, opts)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { nc.Close(); return nil })
	firehose, err := jetstream.New(nc, source.Database(), &jetstream.Options{Logger: log})
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { firehose.Close(); return nil })
	d.listener = firehose

	shown := withoutUserInfo(address)
	subjects := sinks.DatabaseAddress(source.Database()) + ".>"
	option := ""
	if shown != nats.DefaultURL {
		option = " --nats-url " + shown
	}
	out.say(fmt.Sprintf("events go to %s%s: stream %s, subjects %s\nread them with nats sub '%s'%s   or   rowcall tail%s",
		shown, where, firehose.Name(), subjects, subjects, strings.Replace(option, "--nats-url", "--server", 1), option),
		"publishing", "nats", shown, "stream", firehose.Name(), "subjects", subjects)
	return nil
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
