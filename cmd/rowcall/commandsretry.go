package main

import (
	"context"
	"fmt"

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
	}, "put back", (*sinks.Commands).RetryAllDead)
}

func (a *app) commandsDiscardCommand() *cobra.Command {
	return a.eachDeadCommand(&cobra.Command{
		Use:   "discard QUEUE NUMBER...",
		Short: "Throw dead letters away",
		Long:  `Discard removes dead letters for good. Their commands are not carried out.`,
		Example: `  rowcall commands discard fleet 17
  rowcall commands discard fleet --all --name add-carriage`,
	}, "discarded", (*sinks.Commands).DiscardAllDead)
}

// eachDeadCommand does something to all dead letters that are picked.
func (a *app) eachDeadCommand(cmd *cobra.Command, done string, do func(c *sinks.Commands, ctx context.Context, queue string, pick func(*sinks.DeadCommand) bool) (int, error)) *cobra.Command {
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
			n, err := do(c, cmd.Context(), queue, func(d *sinks.DeadCommand) bool {
				_, named := found[d.Ref]
				if named {
					found[d.Ref] = true
				}
				return named || p.all && p.fits(d)
			})
			if err != nil {
				return fmt.Errorf("after %d others were %s: %w", n, done, explainDead(err))
			}
			for _, ref := range refs {
				if !found[ref] {
					return fmt.Errorf("after %d others were %s: queue %s, %s: %w", n, done, queue, ref, explainDead(sinks.ErrNoDeadLetter))
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
