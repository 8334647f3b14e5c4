package jetstream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// What the server is too old for is said at once, with the version that it needs. These
// tests mean something where natstest.BinVariable names the binary of such a server.

func TestOlderServerHasNoGroups(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	if serverHas(t, nc, 11) {
		t.Skip("the server is NATS " + nc.ConnectedServerVersion() + ", which has them")
	}
	store(t, open(t, nc, nil), []*listeners.Batch{sinktest.Transaction(1, 5)})
	g, err := jetstream.NewGroups(nc, "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	group, err := sinks.NewGroup(g, "repricer", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = group.Run(ctx, func(sinks.GroupPartition) listeners.Listener {
		return listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
	})
	if _, ok := errors.AsType[*sinks.PlaceError](err); !ok || !strings.Contains(err.Error(), "NATS 2.11") {
		t.Errorf("Run = %v, want a PlaceError that names the version", err)
	}
}

func TestOlderServerHasNoWholeTransactions(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	if serverHas(t, nc, 12) {
		t.Skip("the server is NATS " + nc.ConnectedServerVersion() + ", which has them")
	}
	_, err := tryOpen(t, nc, &asWholes)
	wantStreamError(t, err, "needs NATS 2.12")
}

// Messages are answered one by one where there are no batches, and Open says so.
func TestOlderServerHasNoFastIngest(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	if serverHas(t, nc, 14) {
		t.Skip("the server is NATS " + nc.ConnectedServerVersion() + ", which has it")
	}
	seen := ends(t, nc)
	batches := history(random(t, 14), 2000)
	store(t, open(t, nc, &always), batches)
	verify(t, nc, batches)
	if n := count(t, seen, nc); n > 0 {
		t.Errorf("%d batches were ended, want none", n)
	}
}
