package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

func (a *app) slotsCommand() *cobra.Command {
	return a.groupCommand("slots", "List and drop replication slots",
		`A replication slot makes the server keep WAL until its reader has confirmed it,
even while no reader runs. These commands show what each slot keeps, and drop
those that nobody needs any more.`,
		a.slotsListCommand(), a.slotsDropCommand())
}

func (a *app) slotsListCommand() *cobra.Command {
	var f operateFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list --database-url URL",
		Short: "List the logical slots of the cluster",
		Long: `List shows all logical slots of the cluster, those of other databases and other
programs too. BEHIND is what the reader has not confirmed; KEEPS is the WAL that
the server holds for the slot: more than BEHIND while a long transaction is open.
WAL is reserved, extended, unreserved (about to be lost) or lost, with the reason
from Postgres 17 on.`,
		Example: `  rowcall slots list --database-url postgres://app@localhost/shop

  # Those that keep more than 1 GB:
  rowcall slots list --database-url postgres://app@localhost/shop --json | jq '.[] | select(.retained_bytes > 1e9)'`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			slots, err := cdc.Slots(cmd.Context(), f.url)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(slots)
			}
			return printSlots(a.stdout, slots)
		},
	}
	f.addURL(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the slots as a JSON array")
	return cmd
}

func printSlots(w io.Writer, slots []cdc.SlotStatus) error {
	if len(slots) == 0 {
		_, err := fmt.Fprintln(w, "there is no logical slot in this cluster")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SLOT\tDATABASE\tPLUGIN\tCONFIRMED\tBEHIND\tKEEPS\tWAL\tSTATE")
	for i := range slots {
		s := &slots[i]
		wal := s.WALStatus
		if s.Invalidation != "" {
			wal += " (" + s.Invalidation + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Database, s.Plugin, s.Confirmed,
			bytesText(s.LagBytes), bytesText(s.RetainedBytes), wal, slotState(s))
	}
	return table.Flush()
}

// slotState is what is special about a slot, and who reads it.
func slotState(s *cdc.SlotStatus) string {
	var words []string
	for _, w := range []struct {
		is   bool
		word string
	}{{s.Temporary, "temporary"}, {s.Failover, "failover"}, {s.Synced, "synced"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	state := "idle"
	if s.Active {
		state = fmt.Sprintf("read by PID %d", s.HolderPID)
		if s.Holder != "" {
			state += " (" + s.Holder + ")"
		}
	}
	return strings.Join(append(words, state), ", ")
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

func (a *app) slotsDropCommand() *cobra.Command {
	var f operateFlags
	var force bool
	var stateDir string
	cmd := &cobra.Command{
		Use:   "drop NAME --database-url URL",
		Short: "Drop a slot",
		Long: `Drop removes a logical slot, and the server may delete the WAL that it kept. The
slot may belong to any database of the cluster. Its reader cannot go on: the next
"rowcall run" with this name begins with a new snapshot, if the state that it has
in --state-dir is removed, too. The publication stays.

A slot that somebody reads is left alone, and the error names the process.
With --force that process is ended first; a "rowcall run" then ends with an error.`,
		Example: `  rowcall slots drop rowcall_shop --database-url postgres://app@localhost/shop
  rowcall slots drop rowcall_shop --database-url postgres://app@localhost/shop --force`,
		Args: takes(1, 1, "the slot's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.slot = args[0] // there is no flag --slot: what is dropped has to be spelled out
			if err := f.check(cmd); err != nil {
				return err
			}
			if args[0] == "" {
				return usage(errors.New("the slot's name is empty"))
			}
			err := cdc.DropSlot(cmd.Context(), f.url, args[0], &cdc.DropOptions{Force: force, StateDir: stateDir})
			var refused *cdc.SlotError
			if !force && errors.Is(err, cdc.ErrSlotInUse) && errors.As(err, &refused) {
				refused.Remedy = "stop that process, or end it with --force"
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "dropped slot %s\n", args[0])
			return err
		},
	}
	f.addURL(cmd)
	cmd.Flags().StringVar(&stateDir, "state-dir", defaultDataDir, "`directory` with the state of the run, which is removed, too, if it is there")
	cmd.Flags().BoolVar(&force, "force", false, "end the process that reads the slot")
	return cmd
}
