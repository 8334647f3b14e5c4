package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A Source reads one database through one replication slot. Make it with
// [New], subscribe, then call [Source.Run].
type Source struct {
	c       *config
	feed    *listeners.Feed
	stats   counters
	tracker tracker
	keeper  tracker    // of the slot of a snapshot that goes on
	state   *stateFile // in memory only until Run has begun
	backs   backfiller // of the reading goroutine

	unstreamed bool // streaming was given up; of Run's goroutine
	onePhase   bool // so were two-phase transactions

	noCatchUp bool // of the goroutine that reads: the server refused

	ready chan struct{} // closed when Run has set up the slot and publication
	ended chan struct{} // closed when Run returns
	kick  chan struct{} // asks for a status update now

	mu      sync.Mutex
	begun   bool
	subs    []*subscription // that were not closed
	epoch   uint64          // once ready
	system  uint64          // likewise
	standby bool            // the server is one; likewise
	shared  bool            // Run begins with a snapshot for those who came before it
	begin   begin           // once ready: where the feed begins
	runErr  error           // once ended

	losses int // of slots, that Run has begun again after
	pauses int // of snapshots that kept too much WAL

	stopOnce sync.Once
}

var _ listeners.Source = (*Source)(nil)

type subscription struct {
	*listeners.Subscription
	durable   listeners.Durable // the listener, if it is one
	reported  bool              // its end was logged
	abandoned bool              // closed by stop, so the slot goes on to hold what it has not handled
}

// released reports whether its owner has closed it. Source.mu is held.
func (s *subscription) released() bool { return s.Closed() && !s.abandoned }

// New checks the options and the form of the connection string (a URL or
// key=value pairs, see the Postgres manual, "Connection Strings"; PGHOST and
// the like count too). It connects to nothing and starts nothing.
func New(databaseURL string, opts *Options) (*Source, error) {
	c, err := newConfig(databaseURL, opts)
	if err != nil {
		return nil, err
	}
	s := &Source{
		c:     c,
		state: new(stateFile),
		ready: make(chan struct{}), ended: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	s.feed = listeners.NewFeed(&listeners.FeedOptions{MaxBytes: c.MaxBytes, HistoryBytes: c.HistoryBytes, Resume: s.resume, Begin: s.beginning})
	return s, nil
}

// Database returns the name of the database, which is also the Source of every
// batch.
func (s *Source) Database() string { return s.c.database }

// Slot returns the name of the replication slot.
func (s *Source) Slot() string { return s.c.Slot }

// Publication returns the name of the publication.
func (s *Source) Publication() string { return s.c.Publication }

// Ready returns a channel that is closed when Run has created or found the
// publication and knows whether a snapshot comes.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Subscribe adds a listener, before Run or during it. Unless the options say
// Ephemeral, the slot holds back what this listener has not handled, even
// after it has failed, until its subscription is closed or the process ends.
//
// With Current, a subscription from before Run shares the initial snapshot, if
// there is one. Otherwise a temporary slot gives it a snapshot of its own,
// which needs one free slot and sender for that time; the source goes on, up
// to the memory of MaxBytes.
//
// With From, or a position of Positions, a subscription from before Run hears
// what the slot still has behind that, each change once. During Run, the
// HistoryBytes of the options say how far back one can go. A position is gone
// if the slot has passed a transaction behind it, or if it is of another
// cluster, or ahead of this one's log. To be sure that the slot has not passed
// any takes a StateDir: without one, a position is taken for gone as soon as
// the slot was confirmed behind its commit, as it is after an orderly end. A
// run that begins with a snapshot tells that to everybody.
//
// The slot follows what is stored in Positions. So a name that was not
// subscribed in every run may find its history gone, as may an Ephemeral one.
func (s *Source) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var join listeners.Join
	if opts != nil && opts.Current {
		early, collections := !s.begun, opts.Collections
		join = func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			shares := early
			early = false // whoever asks again has lost its place since
			return s.join(ctx, shares, collections, emit)
		}
	}
	sub, err := s.feed.Subscribe(name, l, opts, join)
	if err != nil {
		return nil, err
	}
	durable, _ := l.(listeners.Durable)
	s.subs = append(s.subs, &subscription{Subscription: sub, durable: durable})
	return sub, nil
}

// Table is one table of the source, written "schema.table", as a
// [listeners.Source] of its own.
func (s *Source) Table(name string) listeners.Source { return table{s, name} }

type table struct {
	source *Source
	name   string
}

func (t table) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	only := listeners.SubscribeOptions{}
	if opts != nil {
		only = *opts
	}
	p, err := parsePattern(t.name)
	if err != nil {
		return nil, err
	}
	only.Collections = []string{p.String()}
	return t.source.Subscribe(name, l, &only)
}

// Stats returns what the source has done so far.
func (s *Source) Stats() Stats {
	stats := s.stats.read()
	stats.Received, stats.Confirmed = s.tracker.stored(s.stored())
	return stats
}

var (
	errRanBefore      = errors.New("cdc: Run was called before; make a new Source")
	errNoSubscription = errors.New("cdc: nobody is subscribed; call Subscribe before Run")
)

// Run sets up publication and slot, delivers the initial snapshot if there is
// one to deliver, and then every transaction, until ctx ends. It reconnects by
// itself and goes on where it was. It may be called once.
//
// It returns nil when ctx has ended, or when a snapshot was all that was asked
// for, and no subscription has failed. Otherwise it returns a [SetupError], a
// [SlotError], a [DecodeError], or why subscriptions have failed, each a
// [listeners.ListenerError]. It ends early when none is left. When it returns,
// every subscription and every goroutine has ended, except for a listener that
// did not return within StopTimeout; then the error says which.
func (s *Source) Run(ctx context.Context) error {
	s.mu.Lock()
	begun, subscribed := s.begun, len(s.subs) > 0
	s.begun = true
	s.mu.Unlock()
	if begun {
		return errRanBefore
	}
	defer close(s.ended)
	if !subscribed {
		s.runErr = errNoSubscription
		s.feed.CloseFor(s.runErr)
		return s.runErr
	}
	s.state, s.runErr = openState(s.c.StateDir, s.c.Slot)
	if s.runErr != nil {
		s.runErr = fmt.Errorf("cdc: %w", s.runErr)
		s.feed.CloseFor(s.runErr)
		return s.runErr
	}
	s.state.last = s.tracker.lastStored
	running, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(running, cancel) })
	err := s.run(running)
	alone := errors.Is(context.Cause(running), errNoSubscription) // asked before stop ends them all
	if running.Err() != nil && ctx.Err() == nil {
		err = nil // no subscription is left: their errors say why
	}
	if ctx.Err() != nil && err != nil && transient(err) {
		err = nil // what it would have tried again
	}
	if err != nil {
		s.feed.CloseFor(err) // so that subscriptions know; stop has no reason to tell
	}
	err = errors.Join(err, s.stop(ctx))
	failures := s.failures(func(*subscription) bool { return true })
	if alone && len(failures) == 0 {
		failures = []error{errNoSubscription}
	}
	for _, failure := range failures {
		if !errors.Is(err, failure) {
			err = errors.Join(err, failure)
		}
	}
	cancel(nil)
	wg.Wait()
	s.mu.Lock()
	s.runErr = err
	s.mu.Unlock()
	return err
}

// watch logs subscriptions that fail, and ends the run when none is left.
func (s *Source) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.settled(ctx) {
			cancel(errNoSubscription)
			return
		}
	}
}

// settled forgets closed subscriptions, logs those that failed while others go
// on, and reports whether none is left.
func (s *Source) settled(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = slices.DeleteFunc(s.subs, func(sub *subscription) bool { return sub.released() && done(sub.Done()) })
	var ended []*subscription
	for _, sub := range s.subs {
		if done(sub.Done()) {
			ended = append(ended, sub)
		}
	}
	if len(ended) == len(s.subs) {
		return true
	}
	for _, sub := range ended {
		if !sub.reported {
			sub.reported = true
			s.c.Logger.ErrorContext(ctx, "subscription ended; the slot keeps what it has not handled until it is closed",
				"subscription", sub.Name(), "error", sub.Err())
		}
	}
	return false
}

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// stop closes the feed and waits for the subscriptions. It works once; later
// calls return nil.
func (s *Source) stop(ctx context.Context) (err error) {
	s.stopOnce.Do(func() {
		s.feed.Close()
		timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.c.StopTimeout)
		defer cancel()
		s.mu.Lock()
		subs := slices.Clone(s.subs)
		s.mu.Unlock()
		for _, sub := range subs {
			select {
			case <-sub.Done():
			case <-timeout.Done():
				s.mu.Lock()
				sub.abandoned = !sub.Closed()
				s.mu.Unlock()
				sub.Close()
				if !done(sub.Done()) {
					err = errors.Join(err, &listeners.ListenerError{
						Subscription: sub.Name(), Position: sub.Stored(),
						Err: errors.New("the listener did not return when the source stopped"),
					})
				}
			}
		}
	})
	return err
}

// stored returns the position up to which everybody that the slot waits for
// has stored everything.
func (s *Source) stored() listeners.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	lowest := listeners.Position{Epoch: math.MaxUint64, Commit: math.MaxUint64, Index: math.MaxUint32}
	for _, sub := range s.subs {
		if sub.Ephemeral() || sub.released() {
			continue
		}
		if p := sub.Stored(); p.Compare(lowest) < 0 {
			lowest = p
		}
	}
	return lowest
}

// failed returns why subscriptions ended that the slot waits for: what they
// have not stored, they never will.
func (s *Source) failed() error {
	return errors.Join(s.failures(func(sub *subscription) bool { return !sub.Ephemeral() })...)
}

// failures returns why subscriptions of this kind ended.
func (s *Source) failures(of func(*subscription) bool) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failures []error
	for _, sub := range s.subs {
		if of(sub) && !sub.released() && done(sub.Done()) && sub.Err() != nil {
			failures = append(failures, sub.Err())
		}
	}
	return failures
}

// append is where the batches of the slot enter the feed.
func (s *Source) append(ctx context.Context, b *listeners.Batch) error {
	if err := s.feed.Reserve(ctx); err != nil {
		return err
	}
	s.stats.add(b)
	s.feed.Append(b)
	return nil
}
