package jetstream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// The client gives a connection up whose user is refused twice in a row. Who serves a
// queue hears why.
func TestServeSaysWhyItsConnectionWasClosed(t *testing.T) {
	t.Parallel()
	opts := &server.Options{Host: "127.0.0.1", Port: natstest.Port(t), JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, Username: "fleet", Password: "old"}
	start := func() *server.Server {
		s, err := server.NewServer(opts.Clone())
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("the server does not accept connections")
		}
		return s
	}
	s := start()
	nc, err := jetstream.Connect(s.ClientURL(), &jetstream.ConnectOptions{User: "fleet", Password: "old", ReconnectWait: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c := newCommands(t, nc, nil)
	if err := c.Open(t.Context(), "fleet"); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- c.Serve(t.Context(), "fleet", func(context.Context, *sinks.Received) error { return nil }, nil)
	}()
	s.Shutdown()
	s.WaitForShutdown()
	opts.Password = "new"
	start()
	if err := <-served; !errors.Is(err, sinks.ErrCommandsClosed) || !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("Serve = %v, want ErrCommandsClosed that wraps %v", err, nats.ErrAuthorization)
	}
	err = c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"})
	if !errors.Is(err, sinks.ErrCommandsClosed) || !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("Send = %v, want ErrCommandsClosed that wraps %v", err, nats.ErrAuthorization)
	}
}
