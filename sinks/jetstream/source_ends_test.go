package jetstream_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestSourceErrors(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	if _, err := jetstream.NewSource(nil, "a.b", &sinks.SourceOptions{MaxBytes: -1}); err == nil ||
		!strings.Contains(err.Error(), "connection") || !strings.Contains(err.Error(), "name") || !strings.Contains(err.Error(), "MaxBytes") {
		t.Errorf("NewSource = %v, want an error that names all three faults", err)
	}
	s := source(t, nc, nil)
	sinktest.Subscribe(t, s, new(listenertest.Recorder), nil)
	var wrong *sinks.PlaceError
	if err := s.Run(t.Context()); !errors.As(err, &wrong) {
		t.Errorf("Run without a stream = %v, want a PlaceError", err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a second Run = nil, want an error")
	}
	if _, err := s.Subscribe("late", new(listenertest.Recorder), nil); !errors.Is(err, listeners.ErrClosed) {
		t.Errorf("Subscribe after Run = %v, want ErrClosed", err)
	}

	store(t, open(t, nc, nil), []*listeners.Batch{transaction(1, 1)})
	s = source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
	fails := errors.New("no paper")
	sinktest.Subscribe(t, s, &listenertest.Recorder{Err: func(*listeners.Batch) error { return fails }}, nil)
	r := new(listenertest.Recorder)
	sinktest.Subscribe(t, s, r, nil)
	if err := s.Run(t.Context()); !errors.Is(err, fails) {
		t.Errorf("Run with a listener that fails = %v, want %v", err, fails)
	}
	if len(sinktest.Events(r.Batches())) != 1 {
		t.Error("the other listener has not heard the event")
	}
}

// A reader behind its stream says by how much.
func TestSourceLag(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, MaxBytes: 1})
	if lag, err := s.Lag(t.Context()); err != nil || lag != (sinks.SourceLag{}) {
		t.Errorf("Lag before Run = %+v, %v, want none", lag, err)
	}
	store(t, f, []*listeners.Batch{transaction(1, 1), transaction(2, 1), transaction(3, 10)})
	sub := sinktest.Subscribe(t, s, new(listenertest.Recorder), nil)
	sub.Pause()
	sinktest.Start(t, s)
	eventually(t, "a lag of 11 messages", func() bool { // the feed takes one batch
		lag, err := s.Lag(t.Context())
		return err == nil && lag.Messages == 11 && lag.Age > 0
	})
	sub.Resume()
	eventually(t, "no lag", func() bool {
		lag, err := s.Lag(t.Context())
		return err == nil && lag == (sinks.SourceLag{})
	})
}

// The last full reset counts, whatever partial ones came after it, and so do the
// rows in between: the snapshot went on in another run.
func TestSourceAddsUpFromTheLastFullReset(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	partial := reset(6)
	partial.Collections = []string{"public.trains"}
	begun, ended := snapshot(4, 5), live(6)
	begun.Last = false
	store(t, open(t, nc, nil), []*listeners.Batch{
		transaction(1, 3), reset(4), begun, partial, ended, transaction(7, 1),
	})
	stream, err := natstest.JetStream(t, server).Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), natsjs.WithPurgeSequence(3)); err != nil { // so that the beginning is gone
		t.Fatal(err)
	}
	r := new(listenertest.Recorder)
	s := source(t, nc, &sinks.SourceOptions{UntilTip: true})
	sinktest.Subscribe(t, s, r, &listeners.SubscribeOptions{Current: true})
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if got := len(sinktest.Events(r.Batches())); got != 6 {
		t.Errorf("the present state has %d rows, want 6", got)
	}
}

// Run ends soon after its context, and leaves nothing running, while there is
// no server.
func TestSourceEndsWithoutAServer(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(1, 3)})
	s := source(t, nc, nil)
	sub := sinktest.Subscribe(t, s, new(listenertest.Recorder), &listeners.SubscribeOptions{Current: true})
	stop := sinktest.Start(t, s)
	select {
	case <-sub.Live():
	case <-t.Context().Done():
	}
	server.Stop()
	late := sinktest.Subscribe(t, s, new(listenertest.Recorder), &listeners.SubscribeOptions{Current: true})
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Run ended %s after its context", took)
	}
	select {
	case <-late.Done():
	default:
		t.Error("a subscription goes on after Run has ended")
	}
}

// The place of a durable reader in a stream that is empty so far is one to go on from.
func TestDurableReaderOfAnEmptyStream(t *testing.T) {
	t.Parallel()
	for name, current := range map[string]bool{"oldest": false, "current": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := connect(t, natstest.Run(t))
			f := open(t, nc, nil)
			positions := listeners.NewFilePositions(t.TempDir())
			read := func() []listenertest.Batch {
				r := new(listenertest.Recorder)
				s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: !current}, UntilTip: true})
				sinktest.Subscribe(t, s, r, &listeners.SubscribeOptions{Positions: positions, Current: current})
				if err := s.Run(t.Context()); err != nil {
					t.Fatalf("Run: %v", err)
				}
				return r.Batches()
			}
			if got := read(); len(got) == 0 || got[len(got)-1].Kind != listeners.Live || len(sinktest.Events(got)) != 0 {
				t.Errorf("batches of an empty stream = %v, want Live at the end and no events", sinktest.Told(got))
			}
			store(t, f, []*listeners.Batch{transaction(1, 3)})
			if got := sinktest.Events(read()); len(got) != 3 {
				t.Errorf("the reader heard %d events of what was stored since, want 3", len(got))
			}
		})
	}
}
