package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"

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

// A deadBroker has the dead letters 1 to 9, and counts those that were read.
type deadBroker struct {
	sinks.CommandBroker
	read    int
	removed []string
}

func (*deadBroker) OpenQueue(context.Context, string) error                  { return nil }
func (*deadBroker) Publish(context.Context, []sinks.CommandEnvelope) []error { return nil }
func (b *deadBroker) Dead(context.Context, string) iter.Seq2[sinks.DeadCommand, error] {
	return func(yield func(sinks.DeadCommand, error) bool) {
		for i := 1; i <= 9; i++ {
			ref := strconv.Itoa(i)
			b.read++
			if !yield(sinks.DeadCommand{Ref: ref, Envelope: sinks.CommandEnvelope{Command: sinks.Command{Queue: "fleet", Name: "add", ID: ref}, Sender: "s"}}, nil) {
				return
			}
		}
	}
}

func (b *deadBroker) RemoveDead(_ context.Context, _, ref string) error {
	if len(ref) != 1 {
		return sinks.ErrNoDeadLetter
	}
	b.removed = append(b.removed, ref)
	return nil
}

func TestNamedDeadLettersAreReadNoFurther(t *testing.T) {
	for name, test := range map[string]struct {
		do   doNamed
		refs []string
		read int
	}{
		"retry":          {retryNamed, []string{"2", "4"}, 4},
		"retry, no 17":   {retryNamed, []string{"17", "2", "4"}, 9},
		"discard":        {discardNamed, []string{"2", "4"}, 0},
		"discard, no 17": {discardNamed, []string{"17", "2", "4"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(deadBroker)
			c, err := sinks.NewCommands(b, nil)
			if err != nil {
				t.Fatal(err)
			}
			found := make(map[string]bool)
			for _, ref := range test.refs {
				found[ref] = false
			}
			n, err := test.do(t.Context(), c, "fleet", found)
			if err != nil || n != 2 || b.read != test.read || !slices.Equal(b.removed, []string{"2", "4"}) || !found["2"] || found["17"] {
				t.Errorf("%s of %v = %d, %v; removed %v, read %d, found %v; want 2 and 4 removed, %d read", name, test.refs, n, err, b.removed, b.read, found, test.read)
			}
		})
	}
}
