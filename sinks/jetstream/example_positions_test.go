package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A durable name on a Postgres table whose position is in a JetStream bucket:
// the next run may be on another machine, and goes on where this one ended.
func ExampleNewPositions() {
	pgtest.Example("the first run sends to anna\nthe second run sends to bert\n", func(_ context.Context, databaseURL string) error {
		natstest.Example(func(ctx context.Context, url string) error { return examplePositions(ctx, databaseURL, url) })
		return nil
	})
	// Output:
	// the first run sends to anna
	// the second run sends to bert
}

func examplePositions(ctx context.Context, databaseURL, url string) error {
	nc, err := jetstream.Connect(url, nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	positions, err := jetstream.NewPositions(nc, nil)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "state") // on a disk that both machines have
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)

	type mail struct{ Recipient string }
	run := func(name string) error {
		src, err := cdc.New(databaseURL, &cdc.Options{Tables: []string{"public.mails"}, Snapshot: cdc.SnapshotNever, StateDir: state})
		if err != nil {
			return err
		}
		_, err = src.Table("public.mails").Subscribe("sender", listeners.Handlers[mail]{
			OnCreate: func(_ context.Context, c listeners.Change[mail]) error {
				fmt.Println("the", name, "run sends to", c.After.Recipient)
				return nil
			},
		}, &listeners.SubscribeOptions{Positions: positions})
		if err != nil {
			return err
		}
		running, stop := context.WithCancel(ctx)
		defer stop()
		ran := make(chan error, 1)
		go func() { ran <- src.Run(running) }()
		err = src.CaughtUp(ctx)
		if name == "first" {
			err = errors.Join(err, pgtest.Execute(ctx, databaseURL, "INSERT INTO mails (recipient) VALUES ('anna')"), src.CaughtUp(ctx))
		}
		stop()
		return errors.Join(err, <-ran)
	}

	if err := pgtest.Execute(ctx, databaseURL, "CREATE TABLE mails (id bigserial PRIMARY KEY, recipient text NOT NULL)"); err != nil {
		return err
	}
	if err := run("first"); err != nil {
		return err
	}
	if err := pgtest.Execute(ctx, databaseURL, "INSERT INTO mails (recipient) VALUES ('bert')"); err != nil {
		return err
	}
	return run("second")
}
