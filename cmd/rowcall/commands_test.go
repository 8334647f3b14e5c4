package main

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// scriptCommand is "command QUEUE NAME ID BODY...": it sends a command.
func scriptCommand(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 4, "command QUEUE NAME ID BODY...")
	withCommands(ts, func(ctx context.Context, c *sinks.Commands) {
		ts.Check(c.Send(ctx, sinks.Command{Queue: args[0], Name: args[1], ID: args[2], Body: []byte(strings.Join(args[3:], " "))}))
	})
}

// scriptServe is "serve QUEUE N [ERROR]": it carries out N commands, or lets
// them fail for good.
func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "serve QUEUE N [ERROR]")
	withCommands(ts, func(ctx context.Context, c *sinks.Commands) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		left := len(args[1]) // a stroke for each
		ts.Check(c.Serve(ctx, args[0], func(_ context.Context, r *sinks.Received) error {
			if left--; left == 0 {
				stop()
			}
			if len(args) > 2 {
				return sinks.Permanent(errors.New(args[2] + " " + r.ID))
			}
			return nil
		}, &sinks.ServePolicy{Concurrency: 1}))
	})
}

func withCommands(ts *testscript.TestScript, do func(context.Context, *sinks.Commands)) {
	var broker sinks.CommandBroker
	if ts.Getenv("AMQP_URL") != "" {
		b, disconnect := amqpBroker(ts)
		defer disconnect()
		broker = b
	} else {
		nc, err := nats.Connect(ts.Getenv("NATS_URL"))
		ts.Check(err)
		defer nc.Close()
		broker, err = jetstream.NewCommandBroker(nc, nil)
		ts.Check(err)
	}
	c, err := sinks.NewCommands(broker, &sinks.CommandsOptions{Owner: "depot"})
	ts.Check(err)
	defer c.Close()
	do(tb(ts).Context(), c)
}
