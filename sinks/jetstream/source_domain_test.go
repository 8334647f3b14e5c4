package jetstream_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A domain that no server has shows that it is asked by its name.
func TestReadInADomain(t *testing.T) {
	t.Parallel()
	s := bareServer(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), JetStreamDomain: "hub"})
	nc := dialBare(t, s)
	f := open(t, nc, &jetstream.Options{Domain: "hub"})
	store(t, f, []*listeners.Batch{transaction(1, 5)})
	read := func(domain string, limit time.Duration) (events int, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		source, err := jetstream.NewDomainSource(nc, domain, f.Name(), &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
		if err != nil {
			return 0, err
		}
		_, err = source.Subscribe("count", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			events += len(b.Events)
			return nil
		}), nil)
		if err != nil {
			return 0, err
		}
		return events, source.Run(ctx)
	}
	if events, err := read("hub", time.Minute); err != nil || events != 5 {
		t.Errorf("the source of domain hub tells %d events, %v; want 5", events, err)
	}
	messages := 0
	for _, err := range jetstream.Read(t.Context(), nc, f.Name(), &jetstream.ReadOptions{Domain: "hub"}) {
		if err != nil {
			t.Fatal(err)
		}
		messages++
	}
	if messages != 5 {
		t.Errorf("Read in domain hub yields %d messages, want 5", messages)
	}
	if events, _ := read("elsewhere", time.Second); events > 0 { // it waits for the domain
		t.Errorf("the source of a domain that is not there tells %d events, want none", events)
	}
	faults := 0
	for _, err := range jetstream.Read(t.Context(), nc, f.Name(), &jetstream.ReadOptions{Domain: "elsewhere"}) {
		if err == nil {
			t.Error("Read in a domain that is not there yields a message, want an error")
		}
		faults++
	}
	if faults != 1 {
		t.Errorf("Read in a domain that is not there yields %d errors, want one", faults)
	}
}
