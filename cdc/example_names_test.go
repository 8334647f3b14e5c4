package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

type mail struct{ Recipient string }

// A durable name: each run of a program goes on where the last one ended, and
// hears what was committed meanwhile, once. The position is in a file, and so is
// what the source knows of its slot.
func ExampleSource_Subscribe_durable() {
	pgtest.Example("the first run sends to anna\nthe second run sends to bert\nthe second run sends to carl\n", durableExample)
	// Output:
	// the first run sends to anna
	// the second run sends to bert
	// the second run sends to carl
}

func durableExample(ctx context.Context, databaseURL string) error {
	dir, err := os.MkdirTemp("", "mails")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	positions := listeners.NewFilePositions(filepath.Join(dir, "positions"))

	run := func(name, recipient string) error {
		src, err := cdc.New(databaseURL, &cdc.Options{
			Tables: []string{"public.mails"}, StateDir: filepath.Join(dir, "state"),
		})
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
		if err := src.CaughtUp(ctx); err != nil {
			return err
		}
		err = pgtest.Execute(ctx, databaseURL, "INSERT INTO mails (recipient) VALUES ('"+recipient+"')")
		err = errors.Join(err, src.CaughtUp(ctx))
		stop()
		return errors.Join(err, <-ran)
	}

	if err := pgtest.Execute(ctx, databaseURL, "CREATE TABLE mails (id bigserial PRIMARY KEY, recipient text NOT NULL)"); err != nil {
		return err
	}
	if err := run("first", "anna"); err != nil {
		return err
	}
	if err := pgtest.Execute(ctx, databaseURL, "INSERT INTO mails (recipient) VALUES ('bert')"); err != nil {
		return err
	}
	return run("second", "carl")
}
