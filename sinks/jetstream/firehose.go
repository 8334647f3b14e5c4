package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// New returns a firehose for a database's events. It starts nothing and talks
// to nobody; [sinks.Firehose.Open] does. The connection stays the caller's; see
// [Connect] for how to make one. The error names every option that is wrong.
func New(nc *nats.Conn, database string, opts *Options) (*sinks.Firehose, error) {
	return newFirehose(nc, scope{FirehoseScope: sinks.FirehoseScope{Source: database}}, opts)
}

func newFirehose(nc *nats.Conn, from scope, opts *Options) (*sinks.Firehose, error) {
	o := opts.withDefaults(from)
	faults := append(o.validate(), from.Faults()...)
	if nc == nil {
		faults = append(faults, "there must be a connection")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("jetstream: %s", strings.Join(faults, "; "))
	}
	js, err := o.open(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	w := &writer{
		nc: nc, js: js, from: from, opts: o,
		flight: newFlight(o.MaxPending), acks: ackParser{stream: o.Stream}, inbox: nc.NewInbox(),
		lane: sinks.FirehoseLane{Place: place(o.Stream)},
		out:  newOutgoing(from, &o),
	}
	w.lanes = []*sinks.FirehoseLane{&w.lane}
	w.ingest = newIngest(w)
	if o.Atomic && from.bucket == "" {
		w.wholes = newWholes(w)
	}
	config := sinks.FirehoseConfig{
		Scope: from.FirehoseScope, Partitions: o.Partitions, Keep: true, TooLarge: o.TooLarge,
		MaxPending: o.MaxPending, MaxPendingBytes: o.MaxPendingBytes, Logger: o.Logger,
	}
	if from.bucket == "" {
		return sinks.NewFirehose(w, config), nil
	}
	l := &latest{writer: w}
	w.latest = l
	return sinks.NewFirehose(l, config), nil
}

// place names a stream in errors.
func place(stream string) string { return "stream " + stream }

// A writer is the [sinks.FirehoseBroker] of a stream.
type writer struct {
	nc   *nats.Conn
	js   natsjs.JetStream
	from scope
	opts Options

	flight *flight
	acks   ackParser // of the subscription's goroutine
	inbox  string

	// Of the firehose's goroutine alone.
	lane     sinks.FirehoseLane
	lanes    []*sinks.FirehoseLane // lane
	out      *outgoing
	ingest   *ingest
	wholes   *wholes // nil unless Options.Atomic is set
	opened   time.Time
	recovery recovery
	said     error   // the connection's last error when the attempt began
	latest   *latest // of a bucket, nil otherwise

	sub  *nats.Subscription
	stop context.CancelFunc
	wg   sync.WaitGroup
}

var (
	_ sinks.FirehoseParker = (*writer)(nil)
	_ sinks.FirehoseReader = (*writer)(nil)
)

func (w *writer) Name() string { return w.opts.Stream }

func (w *writer) Where() string {
	if s := w.nc.ConnectedUrlRedacted(); s != "" {
		return s
	}
	return "NATS"
}

func (w *writer) Source(opts *sinks.SourceOptions) (*sinks.Source, error) {
	return newSource(&streamLog{nc: w.nc, js: w.js, stream: w.opts.Stream}, opts)
}

// Open waits for each answer as long as Options.AckTimeout.
func (w *writer) Open(ctx context.Context, acks *sinks.FirehoseAcks) (listeners.Position, error) {
	none, whole := listeners.Position{}, ctx
	ctx, cancel := context.WithTimeout(ctx, w.opts.AckTimeout)
	defer cancel()
	if err := w.ensureStream(ctx); err != nil {
		return none, err
	}
	t, err := w.readTail(ctx, w.opts.AckTimeout)
	if err != nil {
		return none, w.explain(ctx, err)
	}
	if t.found && t.position.IsZero() {
		return none, &sinks.PlaceError{Place: place(w.opts.Stream), Reason: fmt.Sprintf(
			"its last message (sequence %d at the latest, subject %q) was not stored by a firehose, so nothing says where to go on; delete that message, and see who publishes there",
			t.seq, t.subject)}
	}
	w.lane.Tail, w.lane.Begun = t.position, t.seq != t.origin
	if w.lane.Filling, err = w.fills(ctx, &t); err != nil {
		return none, w.explain(ctx, err)
	}
	w.flight.acks = acks
	w.flight.begin(w.inbox, t.seq)
	w.flight.forget(t.seq)
	w.out.chained = t.replicas == 1

	sub, err := w.nc.Subscribe(w.inbox+".>", w.onAck)
	if err != nil {
		return none, fmt.Errorf("jetstream: subscribe to acknowledgements: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // the window is the limit
		return none, errors.Join(err, sub.Unsubscribe())
	}
	w.sub = sub
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.wg.Go(func() { w.watch(watchCtx) })
	if w.wholes != nil {
		w.wholes.limit = t.limit
	}
	not := w.ingest.possible(&t)
	w.ingest.allowed = not == ""
	if w.ingest.possible(&tail{batched: true}) == "" { // the stream may allow it later
		w.wg.Go(func() { w.ingest.watch(watchCtx) })
	}
	w.opened, w.said = time.Now(), w.nc.LastError()
	if w.latest != nil {
		if err := w.latest.sweep(whole); err != nil {
			w.Close()
			return none, err
		}
	}
	if t.window > largeDuplicates && !w.opts.MsgID {
		w.opts.Logger.WarnContext(ctx, "the stream's duplicate_window costs the server memory and is of no use here; 100ms is enough",
			"stream", w.opts.Stream, "duplicate_window", t.window)
	}
	about := []any{"stream", w.opts.Stream, "possible", w.ingest.allowed, "when", w.opts.FastIngest}
	if not != "" {
		about = append(about, "not", not)
	}
	w.opts.Logger.InfoContext(ctx, "fast ingest", about...)
	return t.position, nil
}

func (w *writer) Close() {
	w.stop()
	w.flight.deaf()
	_ = w.sub.Unsubscribe() // fails when the connection is closed, and then it is done
	w.wg.Wait()
}

func (w *writer) Lanes(context.Context, *sinks.FirehoseMessage) ([]*sinks.FirehoseLane, error) {
	return w.lanes, nil
}

// Push has the server answer where somebody waits for that. The client library
// sends by itself.
func (w *writer) Push(why sinks.FirehosePush) {
	switch why {
	case sinks.PushFull:
		if w.wholes != nil {
			w.wholes.cutShort()
			return
		}
		w.ingest.makeRoom()
	case sinks.PushFlush:
		w.ingest.end()
	case sinks.PushPart, sinks.PushWhole:
	}
}

func (w *writer) onAck(m *nats.Msg) {
	if strings.HasSuffix(m.Subject, wholeSuffix) {
		w.flight.ackBatch(m.Subject, parseWhole(m, w.opts.Stream))
		return
	}
	if strings.HasSuffix(m.Subject, ingestSuffix) {
		w.flight.ackBatch(m.Subject, parseIngest(m, w.opts.Stream))
		return
	}
	seq, err := w.acks.parse(m)
	w.flight.ack(m.Subject, seq, err)
}

// watch notices what the acknowledgements do not say: that there are none.
func (w *writer) watch(ctx context.Context) {
	const looks = 4 // in each timeout
	status := w.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer w.nc.RemoveStatusListener(status)
	ticker := time.NewTicker(max(w.opts.AckTimeout/looks, time.Millisecond))
	defer ticker.Stop()
	var seen progress
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-status:
			if !ok {
				status = nil
				continue
			}
			w.flight.interrupt(errDisconnected)
		case <-ticker.C:
			p := w.flight.progress()
			if quiet++; p != seen || !p.waiting {
				seen, quiet = p, 0
			}
			if quiet >= looks {
				w.flight.interrupt(errAckTimeout)
			}
		}
	}
}
