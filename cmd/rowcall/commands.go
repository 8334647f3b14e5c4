package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/sinks"
)

// commandsFlags say where the queues are.
type commandsFlags struct {
	natsURL    string
	nats       natsLogin
	amqpURL    string
	amqpPrefix string

	sweeps bool // the broker finds no dead letter but in a pass over all; set by withCommands
}

func (f *commandsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.natsURL, "nats-url", nats.DefaultURL, "NATS server, a `URL` or several separated by commas")
	f.nats.add(cmd, natsPrefix)
	f.addAMQP(cmd)
}

// withCommands connects, and calls do unless something is wrong. Nothing is
// created.
func (a *app) withCommands(cmd *cobra.Command, f *commandsFlags, faults []error, do func(*sinks.Commands) error) error {
	if err := usage(append(faults, a.checkAMQP(cmd, f), checkNATSURL("--nats-url", f.natsURL), f.nats.check(a, cmd))...); err != nil {
		return err
	}
	broker, disconnect, err := f.openBroker(cmd.Context())
	if err != nil {
		return err
	}
	defer disconnect()
	_, f.sweeps = broker.(sinks.DeadSweeper)
	c, err := sinks.NewCommands(broker, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

func (a *app) commandsCommand() *cobra.Command {
	return a.groupCommand("commands", "See the queues of commands and their dead letters",
		`A command asks one service to do one thing, and waits in the queue of that service
until it is done. One that cannot be carried out becomes a dead letter. These
commands show the queues, and put dead letters back or throw them away.`,
		a.commandsListCommand(), a.commandsDeadCommand(), a.commandsShowCommand(), a.commandsRetryCommand(), a.commandsDiscardCommand())
}

func (a *app) commandsListCommand() *cobra.Command {
	var f commandsFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the queues",
		Long: `List shows every queue: the service that owns it, the commands that wait, those
that are running or wait for another attempt, those that are not due yet, the
dead letters, and how long ago the oldest command was stored.`,
		Example: `  rowcall commands list

  # Queues with dead letters:
  rowcall commands list --json | jq '.[] | select(.dead > 0)'`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withCommands(cmd, &f, nil, func(c *sinks.Commands) error {
				queues, err := c.Queues(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(queues)
				}
				return printQueues(a.stdout, queues, time.Now())
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the queues as a JSON array")
	return cmd
}

func printQueues(w io.Writer, queues []sinks.QueueStatus, now time.Time) error {
	if len(queues) == 0 {
		_, err := fmt.Fprintln(w, "there is no queue of commands")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "QUEUE\tOWNER\tWAITING\tRUNNING\tDELAYED\tDEAD\tOLDEST")
	for i := range queues {
		q := &queues[i]
		owner, oldest := q.Owner, "-"
		if owner == "" {
			owner = "-"
		}
		if !q.Oldest.IsZero() {
			oldest = humanize.RelTime(q.Oldest, now, "ago", "from now")
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", q.Queue, owner, q.Waiting, q.Running, q.Delayed, q.Dead, oldest)
	}
	return table.Flush()
}

// checkQueue is for commands whose first argument is a queue.
func checkQueue(queue string) []error {
	if err := sinks.ValidQueue(queue); err != nil {
		return []error{err}
	}
	return nil
}

// deadPicks say which dead letters an operator means.
type deadPicks struct {
	all    bool
	reason string
	name   string
}

func (p *deadPicks) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.all, "all", false, "all dead letters of the queue, or those that --reason and --name leave")
	p.addFilters(cmd)
}

func (p *deadPicks) addFilters(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.reason, "reason", "", "only dead letters with this `reason`, such as attempts or expired")
	cmd.Flags().StringVar(&p.name, "name", "", "only commands with this `name`")
}

func (p *deadPicks) fits(d *sinks.DeadCommand) bool {
	return (p.reason == "" || p.reason == string(d.Dead.Reason)) && (p.name == "" || p.name == d.Envelope.Name)
}

func (p *deadPicks) check(refs []string) []error {
	switch {
	case p.all && len(refs) > 0:
		return []error{errors.New("--all, or the numbers of dead letters; not both")}
	case !p.all && len(refs) == 0:
		return []error{errors.New("which? The numbers of dead letters, as \"rowcall commands dead\" shows them, or --all")}
	case !p.all && (p.reason != "" || p.name != ""):
		return []error{errors.New("--reason and --name go with --all")}
	}
	return nil
}
