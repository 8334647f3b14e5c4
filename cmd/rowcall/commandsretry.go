package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/sinks"
)

func (a *app) commandsRetryCommand() *cobra.Command {
	return a.eachDeadCommand(&cobra.Command{
		Use:   "retry QUEUE NUMBER...",
		Short: "Put dead letters back into their queue",
		Long: `Retry puts the commands of dead letters back into their queue, with the same ids and
all their attempts, and removes the dead letters. An expiry is dropped, and nobody
waits for the reply any more. Interrupted, it has done some of them; run it again.`,
		Example: `  rowcall commands retry fleet 17 18
  rowcall commands retry fleet --all --reason attempts`,
	}, "put back", (*sinks.Commands).RetryAllDead, retryNamed)
}

func (a *app) commandsDiscardCommand() *cobra.Command {
	return a.eachDeadCommand(&cobra.Command{
		Use:   "discard QUEUE NUMBER...",
		Short: "Throw dead letters away",
		Long:  `Discard removes dead letters for good. Their commands are not carried out.`,
		Example: `  rowcall commands discard fleet 17
  rowcall commands discard fleet --all --name add-carriage`,
	}, "discarded", (*sinks.Commands).DiscardAllDead, discardNamed)
}

type (
	// doPicked does something to the dead letters that are picked, in one pass.
	doPicked func(c *sinks.Commands, ctx context.Context, queue string, pick func(*sinks.DeadCommand) bool) (int, error)
	// doNamed does it to those whose refs are the keys, and sets what it has found,
	// without a pass over all.
	doNamed func(ctx context.Context, c *sinks.Commands, queue string, found map[string]bool) (int, error)
)

// eachDeadCommand does something to all dead letters that are picked or named.
func (a *app) eachDeadCommand(cmd *cobra.Command, done string, all doPicked, named doNamed) *cobra.Command {
	var f commandsFlags
	var p deadPicks
	cmd.Args = takes(1, 0, "the queue's name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		queue, refs := args[0], args[1:]
		return a.withCommands(cmd, &f, append(checkQueue(queue), p.check(refs)...), func(c *sinks.Commands) error {
			found := make(map[string]bool, len(refs))
			for _, ref := range refs {
				found[ref] = false
			}
			do := named
			if p.all || f.sweeps {
				do = func(ctx context.Context, c *sinks.Commands, queue string, found map[string]bool) (int, error) {
					return all(c, ctx, queue, func(d *sinks.DeadCommand) bool {
						_, is := found[d.Ref]
						if is {
							found[d.Ref] = true
						}
						return is || p.all && p.fits(d)
					})
				}
			}
			n, err := do(cmd.Context(), c, queue, found)
			behind := ""
			if n > 0 {
				behind = fmt.Sprintf("after %d others were %s: ", n, done)
			}
			if err != nil {
				return fmt.Errorf("%s%w", behind, explainDead(err))
			}
			for _, ref := range refs {
				if !found[ref] {
					return fmt.Errorf("%squeue %s, %s: %w", behind, queue, ref, explainDead(sinks.ErrNoDeadLetter))
				}
			}
			_, err = fmt.Fprintf(a.stdout, "%s %d of queue %s\n", done, n, queue)
			return err
		})
	}
	f.add(cmd)
	p.add(cmd)
	return cmd
}

// retryNamed reads the dead letters up to the last one that is named.
func retryNamed(ctx context.Context, c *sinks.Commands, queue string, found map[string]bool) (int, error) {
	n := 0
	for d, err := range c.Dead(ctx, queue) {
		if err != nil {
			return n, err
		}
		if _, named := found[d.Ref]; !named {
			continue
		}
		if err := resend(ctx, c, &d); err != nil {
			return n, err
		}
		found[d.Ref] = true
		if n++; n == len(found) {
			break
		}
	}
	return n, nil
}

// resend does not wait for ever where the queue is full.
func resend(ctx context.Context, c *sinks.Commands, d *sinks.DeadCommand) error {
	ctx, cancel := context.WithTimeoutCause(ctx, sinks.DefaultSendTimeout, fmt.Errorf("no confirmation within %s: %w", sinks.DefaultSendTimeout, context.DeadlineExceeded))
	defer cancel()
	return c.Resend(ctx, d)
}

// discardNamed reads no other dead letter.
func discardNamed(ctx context.Context, c *sinks.Commands, queue string, found map[string]bool) (int, error) {
	n := 0
	for _, ref := range slices.Sorted(maps.Keys(found)) {
		switch err := c.DiscardDead(ctx, queue, ref); {
		case errors.Is(err, sinks.ErrNoDeadLetter):
		case err != nil:
			return n, err
		default:
			found[ref] = true
			n++
		}
	}
	return n, nil
}
