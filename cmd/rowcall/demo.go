package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// demoFlags are the flags of "rowcall demo".
type demoFlags struct {
	seconds int
	keep    bool
}

func (a *app) demoCommand() *cobra.Command {
	f := new(demoFlags)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work on a throw-away PostgreSQL",
		Long: `Demo starts a throw-away PostgreSQL and a NATS server, sells train tickets, and
shows who hears of it: a region in this process that mirrors the table of seats, a
Go listener that raises prices when a train fills up, a NATS subscriber, and a
fleet service that gets a command when a train is sold out.

It needs PostgreSQL's server programs (Debian and Ubuntu: apt-get install
postgresql) but no running server, and leaves nothing behind.`,
		Example: `  rowcall demo
  rowcall demo --keep   # and play with it in psql`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.seconds < 1 {
				return usage(fmt.Errorf("--seconds %d: want at least 1", f.seconds))
			}
			return a.demo(cmd.Context(), f)
		},
	}
	cmd.Flags().IntVar(&f.seconds, "seconds", 8, "how long to sell tickets, about")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave everything running until interrupted")
	return cmd
}

// stopTimeout bounds the end of each part of the demo.
const stopTimeout = 20 * time.Second

func (a *app) demo(ctx context.Context, f *demoFlags) error {
	tell := newStory(a.stdout, a.palette(a.stdout))
	s, err := startServers(ctx, tell)
	if err == nil {
		err = f.perform(ctx, s, tell)
	}
	if ctx.Err() != nil {
		err = nil // the user wanted the end
	}
	return errors.Join(err, s.stop(ctx))
}

// perform runs the application from its first connection to its end.
func (f *demoFlags) perform(ctx context.Context, s *servers, tell *story) error {
	t, err := newTrip(ctx, s, tell)
	if err != nil {
		return errors.Join(err, t.close(ctx))
	}
	playing, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		err := t.source.Run(playing)
		cancel(err)
		ended <- err
	}()
	err = f.play(playing, t)
	cancel(nil)
	return errors.Join(err, <-ended, t.close(ctx))
}

// play is the story while the source runs.
func (f *demoFlags) play(ctx context.Context, t *trip) error {
	if err := t.seats.WaitReady(ctx); err != nil {
		return err
	}
	if err := t.sell(ctx, time.Duration(f.seconds)*time.Second); err != nil {
		return err
	}
	if err := t.source.CaughtUp(ctx); err != nil {
		return err
	}
	if err := t.repricer.Err(); err != nil {
		return err
	}
	t.story.summary(t)
	if f.keep {
		t.story.invitation(t.servers.databaseURL(), t.servers.nats.URL())
		<-ctx.Done()
		return context.Cause(ctx)
	}
	t.story.ownDatabase()
	return nil
}
