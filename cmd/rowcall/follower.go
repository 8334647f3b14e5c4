package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// A follower is a destination that the journal feeds.
type follower struct {
	*destination
	journal *journal
	open    func(context.Context, *destination) error

	mu sync.Mutex
	at listeners.Position // up to which everything is stored
}

// How long a follower waits before it tries again to reach its broker, and for
// it at the end of a run.
const (
	firstFollowRetry = 500 * time.Millisecond
	lastFollowRetry  = 15 * time.Second
	followerFlush    = 2 * time.Second
	followerSave     = 250 * time.Millisecond
)

// run feeds the destination until ctx ends or, with untilTip, until it has what
// the journal holds now. A broker that cannot be reached is waited for.
func (f *follower) run(ctx context.Context, untilTip bool) error {
	keeper, at, err := f.journal.positions.Open(ctx, f.journal.stream+"/"+f.name)
	if err != nil {
		return fmt.Errorf("%s: its place in the journal: %w", f.name, err)
	}
	defer func() { _ = keeper.Close() }() // what was saved is on disk
	f.reach(at)
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstFollowRetry), backoff.WithMaxInterval(lastFollowRetry), backoff.WithMaxElapsedTime(0))
	for oldest := false; ; {
		before := f.stored()
		err := f.feed(ctx, keeper, untilTip, oldest)
		gap, isGap := errors.AsType[*gapError](err)
		if f.stored() != before {
			oldest = false // it has what it skipped to; the next gap is another one
			retry.Reset()
		}
		switch {
		case ctx.Err() != nil || err == nil:
			return nil
		case isGap && f.options.skipGap:
			f.journal.log.WarnContext(ctx, "events are missing there: the journal no longer holds them; it goes on with the oldest", "to", f.name, "error", gap)
			if !oldest {
				oldest = true
				continue
			}
			// The journal loses its oldest events faster than they are taken, as in
			// a snapshot, where nothing is taken for good before some of it is.
		case !passes(err):
			return fmt.Errorf("%s: %w", f.name, explainWhere(err))
		}
		pause := retry.NextBackOff()
		if !isGap {
			f.journal.log.WarnContext(ctx, "a destination is away; the journal keeps its events", "to", f.name, "again_in", pause.Round(time.Millisecond), "error", err)
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// passes reports whether trying again may help.
func passes(err error) bool {
	_, unreachable := errors.AsType[*sinks.UnreachableError](err)
	_, rabbit := errors.AsType[*rabbitmq.UnreachableError](err)
	away := []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		natsjs.ErrNoStreamResponse,
	}
	return unreachable || rabbit || slices.ContainsFunc(away, func(one error) bool { return errors.Is(err, one) })
}

// feed opens the destination and feeds it until something ends that.
func (f *follower) feed(ctx context.Context, keeper listeners.PositionKeeper, untilTip, oldest bool) (err error) {
	at := f.stored()
	start := sinks.Start{After: at}
	if at.IsZero() || oldest {
		start = sinks.Start{Oldest: true}
	}
	if at.IsZero() && !oldest {
		if err := f.journal.whole(ctx, f.name); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.open(ctx, f.destination); err != nil {
		return err
	}
	source, err := f.journal.at.source(f.journal.nc, f.journal.stream,
		&sinks.SourceOptions{Start: start, UntilTip: untilTip, Logger: f.journal.log})
	if err != nil {
		return err
	}
	guarded := &gapGuard{listener: f.listener, stream: f.journal.stream, name: f.name, fresh: at.IsZero()}
	opts := f.subscribeOptions(new(whereFlag)) // the journal holds what the whole run's condition has let through
	sub, err := source.Subscribe(f.name, guarded.durable(), opts)
	if err != nil {
		return err
	}
	var aside sync.WaitGroup
	ended := make(chan struct{})
	running, stop := context.WithCancel(ctx)
	aside.Go(func() { f.saveWhile(ended, keeper, sub, guarded) })
	aside.Go(func() { closeSoon(ctx, ended, sub) })
	aside.Go(func() {
		defer stop() // a source runs on without its subscriptions
		select {
		case <-sub.Done():
		case <-ended:
		}
	})
	err = source.Run(running)
	close(ended)
	aside.Wait()
	f.save(context.WithoutCancel(ctx), keeper, sub, guarded)
	if _, ok := errors.AsType[*sinks.HistoryError](err); ok {
		err = &gapError{stream: f.journal.stream, name: f.name, after: f.stored(), err: err}
	}
	return err
}

// closeSoon ends a subscription some time after ctx: a broker that is away must
// not keep a run from its end.
func closeSoon(ctx context.Context, ended <-chan struct{}, sub *listeners.Subscription) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	wait := time.NewTimer(followerFlush)
	defer wait.Stop()
	select {
	case <-ended:
	case <-wait.C:
		sub.Close()
	}
}

// saveWhile saves what is stored now and then.
func (f *follower) saveWhile(ended <-chan struct{}, keeper listeners.PositionKeeper, sub *listeners.Subscription, guarded *gapGuard) {
	tick := time.NewTicker(followerSave)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.save(context.Background(), keeper, sub, guarded)
		case <-ended:
			return
		}
	}
}

// save saves what is stored now. If that fails, the old position is as good:
// the broker knows what it has.
func (f *follower) save(ctx context.Context, keeper listeners.PositionKeeper, sub *listeners.Subscription, guarded *gapGuard) {
	at := sub.Stored()
	if at.Compare(f.stored()) <= 0 || !guarded.goesOn(at) {
		return
	}
	if err := keeper.Save(ctx, at); err != nil {
		f.journal.log.WarnContext(ctx, "the place in the journal cannot be saved", "to", f.name, "error", err)
		return
	}
	f.reach(at)
}

func (f *follower) stored() listeners.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *follower) reach(at listeners.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = at
}

// followers are the destinations of a run that the journal feeds.
type followers struct {
	all  []*follower
	log  *slog.Logger
	wg   sync.WaitGroup
	errs []error // by their place in all
}

// start begins to feed them; wait ends that.
func (f *followers) start(ctx context.Context, untilTip bool) {
	f.errs = make([]error, len(f.all))
	for i, one := range f.all {
		f.wg.Go(func() {
			if f.errs[i] = one.run(ctx, untilTip); f.errs[i] != nil && !untilTip {
				f.log.ErrorContext(ctx, "a destination has failed; the others go on, and the journal has what it has not stored", "to", one.name, "error", f.errs[i])
			}
		})
	}
}

// wait returns when none is fed any more, with why that ended, nil where it was
// to end.
func (f *followers) wait() []error {
	f.wg.Wait()
	return f.errs
}
