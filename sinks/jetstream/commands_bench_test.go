package jetstream_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
)

func benchCommands(n int) []sinks.Command {
	cmds := make([]sinks.Command, n)
	for i := range cmds {
		cmds[i] = sinks.Command{Queue: "fleet", Name: "add-carriage", ID: fmt.Sprint(i), Body: []byte(`{"train":7,"seats":4}`)}
	}
	return cmds
}

func BenchmarkCommandsSend(b *testing.B) {
	c := newCommands(b, connect(b, natstest.Run(b)), nil)
	if err := c.Open(b.Context(), "fleet"); err != nil {
		b.Fatal(err)
	}
	cmds := benchCommands(b.N)
	b.ResetTimer()
	if err := c.SendAll(b.Context(), cmds); err != nil {
		b.Fatal(err)
	}
}

// The least that storing the same messages with their ids takes.
func BenchmarkCommandsRawAsync(b *testing.B) {
	nc := connect(b, natstest.Run(b))
	c := newCommands(b, nc, nil)
	if err := c.Open(b.Context(), "fleet"); err != nil {
		b.Fatal(err)
	}
	js, err := natsjs.New(nc, natsjs.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	cmds := benchCommands(b.N)
	b.ResetTimer()
	for i := range cmds {
		if _, err := js.PublishAsync("cmd.fleet.add-carriage", cmds[i].Body, natsjs.WithMsgID(cmds[i].ID)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

func BenchmarkCommandsServe(b *testing.B) {
	c := newCommands(b, connect(b, natstest.Run(b)), nil)
	if err := c.SendAll(b.Context(), benchCommands(b.N)); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	var done atomic.Int64
	b.ResetTimer()
	err := c.Serve(ctx, "fleet", func(context.Context, *sinks.Received) error {
		if done.Add(1) == int64(b.N) {
			stop()
		}
		return nil
	}, &sinks.ServePolicy{Concurrency: 256})
	if err != nil {
		b.Fatal(err)
	}
}
