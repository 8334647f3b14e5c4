package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

func (a *app) publicationCommand() *cobra.Command {
	return a.groupCommand("publication", "Show and change which tables are published",
		`A publication is the list of tables whose changes the server sends. The first
"rowcall run" creates one and never alters it; these commands show and change it.`,
		a.publicationShowCommand(),
		a.publicationAlterCommand(&cobra.Command{
			Use:   "add TABLE... --database-url URL",
			Short: "Add tables to a publication",
			Long: `Add adds tables to a publication: table, schema.table or schema.*, separated by
spaces or commas. Of a partitioned table name the root. Either all are added or,
after an error, none. It needs the owner of the publication and of the tables.

Rows that are already in a table are not read by a running reader, only changes
from now on. A reader that was started with --tables has to ask for the table, too.`,
			Example: `  rowcall publication add trips sales.orders --database-url postgres://app@localhost/shop
  rowcall publication add 'sales.*' --publication everything --database-url postgres://app@localhost/shop`,
		}, "added", cdc.AddTables),
		a.publicationAlterCommand(&cobra.Command{
			Use:   "remove TABLE... --database-url URL",
			Short: "Remove tables from a publication",
			Long: `Remove removes tables that were added to a publication by name: table,
schema.table or schema.*, separated by spaces or commas. Either all are removed
or, after an error, none. It needs the owner of the publication.

From now on no reader of the publication gets their changes. A reader whose
--tables names one of them refuses its next start.`,
			Example: `  rowcall publication remove trips --database-url postgres://app@localhost/shop
  rowcall publication remove 'sales.*' --publication everything --database-url postgres://app@localhost/shop`,
		}, "removed", cdc.RemoveTables))
}

func (a *app) publicationShowCommand() *cobra.Command {
	var f operateFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show [NAME] --database-url URL",
		Short: "Show what a publication sends",
		Long: `Show lists the tables whose changes a publication sends, and which kinds of
changes. Without a name it shows the publication that "rowcall run" with the same
flags reads.`,
		Example: `  rowcall publication show --database-url postgres://app@localhost/shop
  rowcall publication show everything --database-url postgres://app@localhost/shop --json`,
		Args: takes(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if cmd.Flag("publication").Changed && !a.fromEnv["publication"] {
					return usage(errors.New("--publication cannot go with a name: there is one publication to show"))
				}
				f.publication = args[0]
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			p, err := cdc.PublicationTables(cmd.Context(), f.url, f.publicationName())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(p)
			}
			return printPublication(a.stdout, p)
		},
	}
	f.addPublication(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the publication as a JSON object")
	return cmd
}

func printPublication(w io.Writer, p *cdc.Publication) error {
	list := func(words []string) string {
		if len(words) == 0 {
			return "nothing"
		}
		return strings.Join(words, ", ")
	}
	fmt.Fprintf(w, "publication %s of %s sends %s\n", p.Name, p.Owner, list(p.Sends))
	if p.AllTables {
		fmt.Fprintln(w, "for all tables, future ones too")
	}
	if len(p.Schemas) > 0 {
		fmt.Fprintf(w, "for all tables of the schemas %s, future ones too\n", strings.Join(p.Schemas, ", "))
	}
	if !p.ViaRoot {
		fmt.Fprintln(w, "changes of partitions carry their own names, not the root's")
	}
	if len(p.Tables) == 0 {
		_, err := fmt.Fprintln(w, "it has no table yet")
		return err
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TABLE\tADDED\tNOTES")
	for _, t := range p.Tables {
		added := "by name"
		switch {
		case t.Listed:
		case p.AllTables:
			added = "all tables"
		default:
			added = "with its schema or root"
		}
		var notes []string
		for _, n := range []struct {
			is   bool
			note string
		}{
			{t.Partitioned, "partitioned"},
			{t.Filtered, "only some rows or columns"},
			{!t.Identified, "no replica identity: updates and deletes fail"},
		} {
			if n.is {
				notes = append(notes, n.note)
			}
		}
		fmt.Fprintf(table, "%s.%s\t%s\t%s\n", t.Schema, t.Name, added, cmp.Or(strings.Join(notes, ", "), "-"))
	}
	return table.Flush()
}

// publicationAlterCommand completes cmd, which says what alter does, and done
// what it has done.
func (a *app) publicationAlterCommand(cmd *cobra.Command, done string,
	alter func(ctx context.Context, url, publication string, tables []string) (*cdc.PublicationChange, error),
) *cobra.Command {
	var f operateFlags
	cmd.Args = takes(1, 0, "a table")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tables, err := argTables(args)
		if err := usage(err, f.check(cmd, tables...)); err != nil {
			return err
		}
		change, err := alter(cmd.Context(), f.url, f.publicationName(), tables)
		if err != nil {
			return err
		}
		for _, t := range change.Changed {
			fmt.Fprintf(a.stdout, "%s %s\n", done, t)
		}
		for _, t := range change.Unchanged {
			fmt.Fprintf(a.stdout, "%s is in publication %s already\n", t, change.Publication)
		}
		for _, finding := range change.Findings {
			fmt.Fprintf(a.stderr, "%s\n", finding)
		}
		if len(change.Changed) > 0 && done == "added" {
			fmt.Fprintln(a.stderr, "Rows that are already there are not read by a running reader, only changes from now on.")
		}
		return nil
	}
	f.addPublication(cmd)
	return cmd
}
