package jetstream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// leftToPurge makes a bucket whose writer has yet to purge what a reset made obsolete.
func leftToPurge(t *testing.T, nc *nats.Conn) {
	t.Helper()
	f := openLatest(t, nc)
	store(t, f, []*listeners.Batch{transaction(1, 1), reset(2), snapshot(2, 3), live(2)})
	f.Close()
}

// What a predecessor may have left undone cannot be done: no purge gets through. Open
// does not outlive its context.
func TestOpenOfABucketEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	leftToPurge(t, connect(t, s))
	next, err := jetstream.NewLatest(connect(t, s, nats.SetCustomDialer(deafened("STREAM.PURGE"))), "shop", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- next.Open(ctx) }()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open = %v, want that its context has ended", err)
		}
	case <-timeout.C:
		t.Fatal("Open goes on a minute after its context has ended")
	}
}
