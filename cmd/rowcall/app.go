package main

import (
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// An app is one run of the program: where it writes, and what it was told.
type app struct {
	stdout io.Writer
	stderr io.Writer
	lookup func(string) (string, bool) // the environment

	fromEnv  map[string]bool  // names of the flags that the environment set
	fromFile map[string]place // names of the flags that a file set, and where
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "rowcall",
		Short: "Turn the rows committed in PostgreSQL into events",
		Long: `Rowcall turns the rows that are committed in PostgreSQL into events, in commit
order, with the data itself as payload, and publishes them on NATS JetStream.

Every flag of every command can be given in the environment instead: --database-url
is ROWCALL_DATABASE_URL, and so on. A flag wins; an empty variable counts as unset.
The settings of "rowcall run" can stand in a file, too: see "rowcall config".`,
		Example: `  # All three journeys on a throw-away database, in ten seconds:
  rowcall demo

  # Is my database ready?
  rowcall doctor --database-url postgres://app@localhost/shop

  # Publish a table, with a NATS server inside:
  rowcall run --database-url postgres://app@localhost/shop --tables public.seats

  # Watch it:
  rowcall tail seats`,
		Version:       buildVersion(debug.ReadBuildInfo()),
		Args:          a.noArgs,
		SilenceUsage:  true,
		SilenceErrors: true,

		SuggestionsMinimumDistance: 2,

		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.readEnvironment(cmd)
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{faults: []error{err}} })
	root.AddCommand(a.runCommand(), a.tailCommand(), a.replayCommand(), a.doctorCommand(), a.demoCommand(), a.versionCommand())
	root.AddCommand(a.slotsCommand(), a.publicationCommand(), a.backfillCommand())
	root.AddCommand(a.commandsCommand(), a.configCommand())
	return root
}
