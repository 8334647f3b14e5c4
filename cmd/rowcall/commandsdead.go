package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/sinks"
)

func (a *app) commandsDeadCommand() *cobra.Command {
	var f commandsFlags
	var p deadPicks
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dead QUEUE",
		Short: "List the dead letters of a queue",
		Long: `Dead shows the commands of a queue that were given up, oldest first: the number by
which the other commands know it, the command and its id, why and after how many
attempts it was given up, and the last error.

Reasons are attempts (it failed in every one), permanent (the handler said that another attempt
would not help), unfinished (the worker of the last attempt died), undeliverable
(workers died before they could begin), expired, undecodable (it is no command),
and unclear (whether it was carried out).`,
		Example: `  rowcall commands dead fleet
  rowcall commands dead fleet --reason expired --json | jq -r .id`,
		Args: takes(1, 1, "the queue's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withCommands(cmd, &f, checkQueue(args[0]), func(c *sinks.Commands) error {
				letters, err := pick(cmd.Context(), c, args[0], &p)
				if err != nil {
					return err
				}
				if !asJSON {
					return printDead(a.stdout, args[0], letters)
				}
				for i := range letters {
					line, err := json.Marshal(deadJSONOf(&letters[i]))
					if err != nil {
						return err
					}
					if _, err := fmt.Fprintf(a.stdout, "%s\n", line); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.add(cmd)
	p.addFilters(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each dead letter as one line of JSON")
	return cmd
}

// pick returns the dead letters that fit, oldest first.
func pick(ctx context.Context, c *sinks.Commands, queue string, p *deadPicks) ([]sinks.DeadCommand, error) {
	var found []sinks.DeadCommand
	for d, err := range c.Dead(ctx, queue) {
		if err != nil {
			return nil, err
		}
		if p.fits(&d) {
			found = append(found, d)
		}
	}
	return found, nil
}

func printDead(w io.Writer, queue string, letters []sinks.DeadCommand) error {
	if len(letters) == 0 {
		_, err := fmt.Fprintf(w, "queue %s has no such dead letter\n", queue)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NO\tCOMMAND\tID\tREASON\tATTEMPTS\tGIVEN UP\tERROR")
	for i := range letters {
		d := &letters[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.Ref, printable(d.Envelope.Name), printable(d.Envelope.ID), printable(string(d.Dead.Reason)),
			d.Dead.Attempts, d.Dead.Time.Local().Format(time.DateTime), printable(d.Dead.Error))
	}
	return table.Flush()
}

// printable keeps what others wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// printableText is printable for text with lines.
func printableText(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		fields := strings.Split(line, "\t")
		for k := range fields {
			fields[k] = printable(fields[k])
		}
		lines[i] = strings.Join(fields, "\t")
	}
	return strings.Join(lines, "\n")
}

func (a *app) commandsShowCommand() *cobra.Command {
	var f commandsFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show QUEUE NUMBER",
		Short: "Show a dead letter with its command",
		Long: `Show prints all of a dead letter: why it was given up, by whom and when, where it
had been, and the command as it was sent, body included.`,
		Example: `  rowcall commands show fleet 17
  rowcall commands show fleet 17 --json | jq .body`,
		Args: takes(2, 2, "the queue's name, or the dead letter's number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withCommands(cmd, &f, checkQueue(args[0]), func(c *sinks.Commands) error {
				d, err := c.DeadLetter(cmd.Context(), args[0], args[1])
				if err != nil {
					return explainDead(err)
				}
				if asJSON {
					return a.printJSON(deadJSONOf(&d))
				}
				return showDead(a.stdout, &d)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func showDead(w io.Writer, d *sinks.DeadCommand) error {
	e := &d.Envelope
	lines := [][2]string{
		{"command", e.Queue + "/" + e.Name},
		{"id", e.ID},
		{"sender", e.Sender},
		{"sent", timeOrDash(e.Sent)},
		{"reason", string(d.Dead.Reason)},
		{"error", d.Dead.Error},
		{"attempts", strconv.Itoa(d.Dead.Attempts)},
		{"given up", timeOrDash(d.Dead.Time) + " by " + d.Dead.Worker},
		{"was at", d.Origin},
	}
	if d.Cut > 0 {
		lines = append(lines, [2]string{"cut", fmt.Sprintf("the last %d bytes of the body are missing", d.Cut)})
	}
	if !e.Expires.IsZero() {
		lines = append(lines, [2]string{"expires", timeOrDash(e.Expires)})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		lines = append(lines, [2]string{"header", name + ": " + e.Headers[name]})
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		fmt.Fprintf(table, "%s\t%s\n", l[0], printable(l[1]))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	body := fmt.Sprintf("%q", e.Body)
	if utf8.Valid(e.Body) {
		body = printableText(string(e.Body))
	}
	_, err := fmt.Fprintf(w, "\n%s\n", body)
	return err
}

func timeOrDash(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.RFC3339)
}

// A deadJSON is a dead letter for programs. A body that is JSON stays so.
type deadJSON struct {
	Number   string            `json:"number"`
	Queue    string            `json:"queue"`
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Sender   string            `json:"sender"`
	Sent     time.Time         `json:"sent,omitzero"`
	Origin   string            `json:"origin"`
	Headers  map[string]string `json:"headers,omitempty"`
	Body     any               `json:"body"`
	Cut      int               `json:"cut,omitempty"`
	Reason   sinks.DeadReason  `json:"reason"`
	Error    string            `json:"error"`
	Attempts int               `json:"attempts"`
	Worker   string            `json:"worker"`
	Time     time.Time         `json:"time"`
}

func deadJSONOf(d *sinks.DeadCommand) deadJSON {
	e := &d.Envelope
	j := deadJSON{
		Number: d.Ref, Queue: e.Queue, Name: e.Name, ID: e.ID, Sender: e.Sender, Sent: e.Sent, Origin: d.Origin, Headers: e.Headers, Cut: d.Cut,
		Reason: d.Dead.Reason, Error: d.Dead.Error, Attempts: d.Dead.Attempts, Worker: d.Dead.Worker, Time: d.Dead.Time,
	}
	switch {
	case json.Valid(e.Body):
		j.Body = json.RawMessage(e.Body)
	case utf8.Valid(e.Body):
		j.Body = string(e.Body)
	default:
		j.Body = e.Body // base64
	}
	return j
}

// explainDead says what an operator can do.
func explainDead(err error) error {
	if errors.Is(err, sinks.ErrNoDeadLetter) {
		return fmt.Errorf("%w; \"rowcall commands dead\" lists those that there are", err)
	}
	return err
}
