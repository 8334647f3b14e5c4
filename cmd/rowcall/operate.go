package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

// groupCommand is a command that only has others below it.
func (a *app) groupCommand(name, short, long string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("unknown command %q", cmd.Name()+" "+args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usage(errors.New(text))
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(below...)
	return cmd
}

// takes is for commands that want from least to most arguments; most 0 is any
// number.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(fmt.Errorf("%s is missing: %s", what, cmd.UseLine()))
		case most > 0 && len(args) > most:
			return usage(fmt.Errorf("unknown argument %q: %s", args[most], cmd.UseLine()))
		}
		return nil
	}
}

// An operateFlags says which database an operator's command is about.
type operateFlags struct {
	url         string
	slot        string
	publication string
}

func (f *operateFlags) addURL(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "database-url", "",
		"connection `URL`, such as postgres://user:password@host/database (required)")
	addConfigFlag(cmd)
}

func (f *operateFlags) addPublication(cmd *cobra.Command) {
	f.addURL(cmd)
	cmd.Flags().StringVar(&f.slot, "slot", "", "`name` of the replication slot (default: rowcall_ and the database's name)")
	cmd.Flags().StringVar(&f.publication, "publication", "", "`name` of the publication (default: the slot's name)")
}

// check finds what makes no sense before anything is touched.
func (f *operateFlags) check(cmd *cobra.Command, tables ...string) error {
	faults := []error{required(cmd, "database-url")}
	if f.url != "" {
		_, err := cdc.New(f.url, &cdc.Options{Slot: f.slot, Publication: f.publication, Tables: tables})
		faults = append(faults, err)
	}
	return usage(faults...)
}

// publicationName is the one to work on, "" for that of the database.
func (f *operateFlags) publicationName() string { return cmp.Or(f.publication, f.slot) }

func (a *app) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", text)
	return err
}

// argTables splits arguments as --tables does: a list separated by commas may
// stand for several.
func argTables(args []string) ([]string, error) {
	var list tableList
	for _, arg := range args {
		if err := list.Set(arg); err != nil {
			return nil, usage(fmt.Errorf("tables %q: %w", arg, err))
		}
	}
	return list.tables, nil
}
