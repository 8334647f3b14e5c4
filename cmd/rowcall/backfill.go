package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

func (a *app) backfillCommand() *cobra.Command {
	var f operateFlags
	var where string
	var noWait bool
	cmd := &cobra.Command{
		Use:   "backfill TABLE... --database-url URL",
		Short: "Publish rows of a table again, while \"rowcall run\" goes on",
		Long: `Backfill asks the "rowcall run" that reads a slot to publish rows again as they
stand: all of a table, such as one that was added to the publication, or those
that a condition picks. They come as events with the operation read, at their
place between the changes, which wait meanwhile.

The request is written to the database, so that the run may be elsewhere, or come
later; it is done again if the run dies over it. The command waits until the rows
are stored, unless --no-wait says otherwise. Interrupted, it leaves the request.

The condition compares columns with constants. Tables are written schema.table or
schema.*; they must be published.`,
		Example: `  # A table that was just added:
  rowcall publication add public.trips --database-url postgres://app@localhost/shop
  rowcall backfill public.trips --database-url postgres://app@localhost/shop

  # Some rows:
  rowcall backfill seats --where "trip_id = 7 AND class = 'first'" --database-url postgres://app@localhost/shop`,
		Args: takes(1, 0, "the table"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tables, err := argTables(args)
			if err != nil {
				return err
			}
			if err := f.check(cmd, tables...); err != nil {
				return err
			}
			return a.backfill(cmd, &f, &cdc.Backfill{
				Tables: tables, Where: where, Slot: f.slot, Publication: f.publication,
			}, noWait)
		},
	}
	f.addPublication(cmd)
	cmd.Flags().StringVar(&where, "where", "", "a `condition` over columns, such as \"price > 10\" (default: all rows)")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the rows are stored")
	return cmd
}

func (a *app) backfill(cmd *cobra.Command, f *operateFlags, b *cdc.Backfill, noWait bool) error {
	ctx := cmd.Context()
	r, err := cdc.RequestBackfill(ctx, f.url, b)
	if err != nil {
		return err
	}
	what := strings.Join(r.Tables, ", ")
	if noWait {
		_, err := fmt.Fprintf(a.stdout, "requested backfill %s of %s\n", r.ID, what)
		return err
	}
	fmt.Fprintf(a.stderr, "requested backfill %s of %s\n", r.ID, what)
	err = cdc.WaitBackfill(ctx, f.url, r, func(s cdc.BackfillState) {
		switch s {
		case cdc.BackfillUnread:
			fmt.Fprintf(a.stderr, "nobody reads slot %s; waiting for \"rowcall run\"\n", r.Slot)
		case cdc.BackfillWaiting:
			fmt.Fprintln(a.stderr, "waiting for its turn, behind what is to be read and transactions that are open")
		case cdc.BackfillReading:
			fmt.Fprintln(a.stderr, "the rows are being read")
		case cdc.BackfillDone:
		}
	})
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; the request stays, and \"rowcall run\" sees to it")
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "backfill %s of %s is done\n", r.ID, what)
	return err
}
