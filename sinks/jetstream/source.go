package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A Source reads a stream that a firehose of [New] or [NewRegion] writes, in any process, and hands
// its listeners the batches that listeners of the firehose's own source hear.
// Make it with [NewSource], subscribe, then call [Source.Run].
//
// Transactions are whole: one that is larger than MaxTxBytes comes in parts, and
// one whose end is not stored yet is waited for. Nothing comes twice. A lost
// connection or a restarted server is made up for. What the records hold is
// described at [sinks.Decoder].
//
// A subscription with [listeners.SubscribeOptions].Current is told the present
// state, which the source adds up from the stream's last snapshot on; for that
// time it holds one record of each row in memory. It needs a stream that holds a
// snapshot, or all of its history; otherwise the subscription ends with a
// [HistoryError].
//
// When a purge, the limits or a restored backup took what was to be read,
// all subscriptions get a Reset, the present state and Live. If the stream does
// not hold that either, Run ends with a [HistoryError].
type Source struct {
	nc      *nats.Conn
	js      natsjs.JetStream
	stream  string
	opts    SourceOptions
	feed    *listeners.Feed
	decoder *sinks.Decoder
	wanted  func(*listeners.Event) bool // nil for all

	ready chan struct{} // closed when Run knows where it begins
	ended chan struct{} // closed when Run returns
	begun atomic.Bool
	read  atomic.Uint64 // the sequence up to which all was handed on

	mu   sync.Mutex
	subs []*listeners.Subscription
}

var _ listeners.Source = (*Source)(nil)

// NewSource returns a source for a stream's events. It starts nothing and talks
// to nobody. The connection stays the caller's; see [Connect]. The error names
// every option that is wrong.
func NewSource(nc *nats.Conn, stream string, opts *SourceOptions) (*Source, error) {
	o := opts.withDefaults()
	faults := o.validate(stream)
	if nc == nil {
		faults = append(faults, "there must be a connection")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("jetstream: %s", strings.Join(faults, "; "))
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	s := &Source{
		nc: nc, js: js, stream: stream, opts: o, decoder: sinks.NewDecoder(),
		feed:  listeners.NewFeed(&listeners.FeedOptions{MaxBytes: o.MaxBytes}),
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
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
// subscription with Current is told the state when Run has begun. Nothing is
// kept for a subscription after the process has ended: who wants to go on there
// stores positions and sets [SourceOptions].Start.
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
		return nil, fmt.Errorf("stream %s: %w", s.stream, err)
	}
	s.subs = append(slices.DeleteFunc(s.subs, func(o *listeners.Subscription) bool { return o.Closed() && isClosed(o.Done()) }), sub)
	return sub, nil
}

// Stream returns the name of the stream.
func (s *Source) Stream() string { return s.stream }

// Ready returns a channel that is closed when Run knows where it begins: what is
// stored from then on is heard.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Run reads until ctx ends, or, with UntilTip, until everything is handled. It
// may be called once.
//
// It returns nil then, unless a subscription has failed; its error is returned,
// each a [listeners.ListenerError]. Otherwise it returns a [StreamError], a
// [HistoryError], what is wrong with a message, or that the connection was
// closed. A server that is away is waited for. When Run returns, every
// subscription and every goroutine has ended, except for a listener that did
// not return within StopTimeout; then the error says which.
func (s *Source) Run(ctx context.Context) error {
	if s.begun.Swap(true) {
		return errors.New("jetstream: Run was called before; make a new Source")
	}
	defer close(s.ended)
	err := s.run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	if err == nil && s.opts.UntilTip && ctx.Err() == nil {
		s.settle(ctx)
	}
	return errors.Join(err, s.stop())
}

func (s *Source) run(ctx context.Context) error {
	c := s.cursor()
	t, err := s.begin(ctx, c)
	if err != nil {
		return err
	}
	s.read.Store(max(c.next, 1) - 1)
	close(s.ready)
	for {
		err := error(nil)
		if !t.lost {
			err = c.follow(ctx, func(list []arrival) error { return s.take(ctx, t, list) })
		}
		var gone *HistoryError
		if !t.lost && !errors.As(err, &gone) {
			return err
		}
		t.lost = false
		s.opts.Logger.WarnContext(ctx, "history is gone; the present state follows", "stream", s.stream, "next", c.next)
		if err := s.restart(ctx, c, t); err != nil {
			return err
		}
	}
}

func (s *Source) cursor() *cursor {
	return &cursor{nc: s.nc, js: s.js, stream: s.stream, log: s.opts.Logger}
}

// restart appends the present state and goes on behind it.
func (s *Source) restart(ctx context.Context, c *cursor, t *take) error {
	state, next, err := s.state(ctx, s.wanted)
	if err != nil {
		return err
	}
	if err := state.Tell(func(b *listeners.Batch) error { return s.append(ctx, b) }); err != nil {
		return err
	}
	c.next, c.created = next.next, next.created
	t.assembler = s.assembler(s.wanted)
	t.live, t.fresh = false, false
	s.read.Store(c.next - 1)
	return nil
}

func (s *Source) assembler(wanted func(*listeners.Event) bool) *sinks.Assembler {
	return &sinks.Assembler{MaxTxBytes: s.opts.MaxTxBytes, Wanted: wanted}
}

// A take is where Run is.
type take struct {
	assembler *sinks.Assembler
	tip       uint64             // the last sequence when Run began
	at        listeners.Position // of the message before the first one
	live      bool               // Live is owed when the tip is reached
	fresh     bool               // nothing of the stream was read, and nothing was stored before
	lost      bool               // where Run should begin is gone
}

// take appends what has arrived to the feed.
func (s *Source) take(ctx context.Context, t *take, list []arrival) error {
	emit := func(b *listeners.Batch) error {
		if b.Kind == listeners.Live && t.live {
			return nil // told at the tip
		}
		return s.append(ctx, b)
	}
	for i := range list {
		a := &list[i]
		p, ok, err := s.decode(ctx, a)
		if err != nil {
			return err
		}
		if ok {
			if t.fresh && p.Kind == listeners.Snapshot {
				if err := s.append(ctx, firstReset(&p)); err != nil {
					return err
				}
				t.assembler.Begin()
			}
			t.fresh = false
			if err := t.assembler.Add(&p, emit); err != nil {
				return err
			}
		}
		if a.seq >= t.tip || a.pending == 0 {
			if err := s.tip(ctx, t, &p); err != nil {
				return err
			}
		}
		s.read.Store(a.seq)
	}
	if err := t.assembler.Flush(emit); err != nil {
		return err
	}
	if len(list) == 0 {
		return s.tip(ctx, t, &sinks.Part{Position: t.assembler.Last()})
	}
	return nil
}

// firstReset begins the snapshot with which a stream begins.
func firstReset(p *sinks.Part) *listeners.Batch {
	return &listeners.Batch{
		Kind: listeners.Reset, Source: p.Source, Tx: p.Tx, Position: p.Position, First: true, Last: true, Size: p.Size,
	}
}

// tip is called when everything from before Run was read.
func (s *Source) tip(ctx context.Context, t *take, p *sinks.Part) error {
	if t.live && t.assembler.Idle() {
		t.live = false
		at := t.assembler.Last()
		if at.IsZero() {
			at = t.at
		}
		if at.IsZero() {
			at.Index = 1 // nothing that has the zero position is ever told
		}
		live := &listeners.Batch{
			Kind: listeners.Live, Source: p.Source, Tx: p.Tx, Position: at, First: true, Last: true, Size: p.Size,
		}
		if err := s.append(ctx, live); err != nil {
			return err
		}
	}
	if s.opts.UntilTip {
		return errStop
	}
	return nil
}

// decode returns false for a message that is no event: nobody stored it who
// has anything to say here.
func (s *Source) decode(ctx context.Context, a *arrival) (sinks.Part, bool, error) {
	h := a.msg.Headers()
	if h.Get(headerSequence) == "" {
		s.opts.Logger.WarnContext(ctx, "a message is no event and is left out", "stream", s.stream, "sequence", a.seq, "subject", a.msg.Subject())
		return sinks.Part{}, false, nil
	}
	address := a.msg.Subject()
	if plain := h.Get(headerAddress); plain != "" {
		address = plain // of an entry of a bucket
	}
	p, err := s.decoder.Decode(address, attributes(h), a.msg.Data())
	if err != nil {
		return p, false, fmt.Errorf("stream %s: sequence %d: %w", s.stream, a.seq, err)
	}
	return p, true, nil
}

func (s *Source) append(ctx context.Context, b *listeners.Batch) error {
	if err := s.feed.Reserve(ctx); err != nil {
		return err
	}
	s.feed.Append(b)
	return nil
}

// settle waits until every subscription has handled what was read.
func (s *Source) settle(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for _, sub := range s.subscriptions() {
		if sub.Wait(ctx, listeners.Position{}) != nil { // told the state, if it asked
			continue // it has ended, or ctx has
		}
		for sub.Lag().Batches > 0 && ctx.Err() == nil && !isClosed(sub.Done()) {
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

// stop ends all subscriptions, waits for them, and returns why they failed.
func (s *Source) stop() error {
	s.feed.Close() // Subscribe fails from now on
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
