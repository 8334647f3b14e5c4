package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A Source reads a log that a firehose writes, in any process, and hands its
// listeners the batches that listeners of the firehose's own source hear. A
// broker's package makes it (jetstream.NewSource); subscribe, then call
// [Source.Run].
//
// Transactions are whole: one that is larger than MaxTxBytes comes in parts, and
// one whose end is not stored yet is waited for. Nothing comes twice. A lost
// connection or a restarted broker is made up for. What the records hold is
// described at [Decoder].
//
// A subscription with [listeners.SubscribeOptions].Current is told the present
// state, which the source adds up from the log's last snapshot on; for that
// time it holds one record of each row in memory. It needs a log that holds a
// snapshot, or all of its history; otherwise the subscription ends with a
// [HistoryError].
//
// When a purge, the limits or a restored backup took what was to be read,
// all subscriptions get a Reset, the present state and Live. If the log does
// not hold that either, Run ends with a [HistoryError].
type Source struct {
	log     Log
	opts    SourceOptions
	feed    *listeners.Feed
	decoder *Decoder
	wanted  func(*listeners.Event) bool // nil for all

	ready chan struct{}      // closed when Run knows where it begins
	begin listeners.Position // of the message before that, zero if there is none; set before ready
	ended chan struct{}      // closed when Run returns
	begun atomic.Bool
	read  atomic.Uint64 // the place up to which all was handed on

	replaying atomic.Int64 // subscriptions that are told what came behind a position

	mu     sync.Mutex
	subs   []*listeners.Subscription
	reader LogReader // Run's; nil while there is none
}

var _ listeners.Source = (*Source)(nil)

// NewSource returns a source for what a broker's log holds. It starts nothing
// and talks to nobody. The error names every option that is wrong.
func NewSource(log Log, opts *SourceOptions) (*Source, error) {
	o := opts.withDefaults()
	faults := o.validate()
	if log == nil {
		faults = append(faults, "there must be a log to read")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("sinks: %s", strings.Join(faults, "; "))
	}
	s := &Source{
		log: log, opts: o, decoder: NewDecoder(),
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	s.feed = listeners.NewFeed(&listeners.FeedOptions{MaxBytes: o.MaxBytes, Begin: s.beginsAt, Replay: s.replay})
	if len(o.Collections) > 0 {
		s.wanted = in(o.Collections)
	}
	return s, nil
}

func in(collections []string) func(*listeners.Event) bool {
	set := make(map[string]struct{}, len(collections))
	for _, c := range collections {
		set[c] = struct{}{}
	}
	return func(e *listeners.Event) bool {
		_, ok := set[e.Schema.Collection()]
		return ok
	}
}

// Subscribe implements [listeners.Source], before Run or during it. A
// subscription with Current is told the state when Run has begun.
//
// A subscription with [listeners.SubscribeOptions].From or Positions goes on
// where it was, whatever [SourceOptions].Start says and whenever it comes: what
// the source does not have in memory it reads again from the log, for this
// subscription alone. What the log does not have ends the subscription with a
// [listeners.HistoryError], or begins it anew if it asks for Current.
func (s *Source) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var join listeners.Join
	if opts != nil && opts.Current {
		wanted := s.wanted
		if len(opts.Collections) > 0 {
			wanted = in(opts.Collections)
		}
		join = func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			return s.join(ctx, wanted, emit)
		}
	}
	sub, err := s.feed.Subscribe(name, l, opts, join)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.log.Name(), err)
	}
	s.subs = append(slices.DeleteFunc(s.subs, func(o *listeners.Subscription) bool { return o.Closed() && isClosed(o.Done()) }), sub)
	return sub, nil
}

// Name returns what it reads, such as "stream CDC_SHOP".
func (s *Source) Name() string { return s.log.Name() }

// Ready returns a channel that is closed when Run knows where it begins: what is
// stored from then on is heard.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Lag asks the broker how far the source is behind: what is stored and not read yet.
// What waits for a listener is in [listeners.Subscription.Lag]. It is zero while Run has
// not found where it begins. It blocks for a few round trips, until ctx ends, and tries
// once. It may be called from anywhere.
func (s *Source) Lag(ctx context.Context) (SourceLag, error) {
	s.mu.Lock()
	r := s.reader
	s.mu.Unlock()
	if r == nil {
		return SourceLag{}, nil
	}
	lag, err := r.Lag(ctx, s.read.Load())
	if err != nil {
		return lag, fmt.Errorf("%s: lag: %w", s.log.Name(), err)
	}
	return lag, nil
}

// Run reads until ctx ends, or, with UntilTip, until everything is handled. It
// may be called once.
//
// It goes on when a subscription fails, even the only one, since others may come:
// who has nothing else to do waits for [listeners.Subscription.Done], too, and
// ends ctx.
//
// It returns nil then, unless a subscription has failed; its error is returned,
// each a [listeners.ListenerError]. Otherwise it returns a [HistoryError], what is
// wrong with a message, or what the broker's package says is wrong with the log
// or the connection; [listeners.Subscription.Reason] says the same. A broker that is away is waited for. When Run returns, every
// subscription and every goroutine has ended, except for a listener that did
// not return within StopTimeout; then the error says which.
func (s *Source) Run(ctx context.Context) error {
	if s.begun.Swap(true) {
		return errors.New("sinks: Run was called before; make a new Source")
	}
	defer close(s.ended)
	err := s.run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	if err == nil && s.opts.UntilTip && ctx.Err() == nil {
		s.settle(ctx)
	}
	return errors.Join(err, s.stop(err))
}

// settle waits until every subscription has handled what was read.
func (s *Source) settle(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for _, sub := range s.subscriptions() {
		if sub.Wait(ctx, listeners.Position{}) != nil { // told the state, if it asked
			continue // it has ended, or ctx has
		}
		for (sub.Lag().Batches > 0 || s.replaying.Load() > 0) && ctx.Err() == nil && !isClosed(sub.Done()) {
			select {
			case <-tick.C:
			case <-sub.Done():
			case <-ctx.Done():
			}
		}
	}
}

func (s *Source) subscriptions() []*listeners.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.subs)
}

// stop ends all subscriptions, waits for them, and returns why they failed. They
// learn why the source failed from [listeners.Subscription.Reason].
func (s *Source) stop(reason error) error {
	if reason == nil {
		reason = listeners.ErrClosed
	}
	s.feed.CloseFor(reason) // Subscribe fails from now on
	timeout := time.NewTimer(s.opts.StopTimeout)
	defer timeout.Stop()
	var errs []error
	for _, sub := range s.subscriptions() {
		if sub.Closed() {
			continue
		}
		select {
		case <-sub.Done():
			errs = append(errs, sub.Err())
			continue
		case <-timeout.C:
			timeout.Reset(0) // the others get no more
		}
		at := sub.Stored()
		sub.Close()
		if !isClosed(sub.Done()) {
			errs = append(errs, &listeners.ListenerError{
				Subscription: sub.Name(), Position: at, Err: errors.New("the listener did not return when the source stopped"),
			})
		}
	}
	return errors.Join(errs...)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
