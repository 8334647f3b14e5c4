package jetstream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// What a predecessor may have left undone cannot be done: nobody may purge. Open
// does not outlive its context.
func TestOpenOfABucketEndsWithItsContext(t *testing.T) {
	s := bareServer(t, &server.Options{
		JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "writer", Password: "x", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.PURGE.>"}},
			}},
		},
	})
	login := func(user string) *nats.Conn {
		nc, err := jetstream.Connect(s.ClientURL(), &jetstream.ConnectOptions{User: user, Password: "x"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	f := openLatest(t, login("admin"))
	store(t, f, []*listeners.Batch{transaction(1, 1), reset(2), snapshot(2, 3), live(2)})
	f.Close()
	next, err := jetstream.NewLatest(login("writer"), "shop", "", nil)
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
