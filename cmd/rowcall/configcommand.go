package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	return a.groupCommand("config", "Check a file of settings, or print an example of one",
		`The settings of "rowcall run" can stand in a file, which is named with --config:

  rowcall run --config rowcall.yaml

A key is called as its flag is. A flag that is given on the command line wins over
the file, and the file over the environment. Places that events go to can have
options of their own there. ${NAME} in a value stands for a variable of the
environment, $${ for the characters themselves. Commands that are about the same
database, such as doctor, slots, publication and backfill, take --config, too, and
what concerns them of it.`,
		a.configCheckCommand(), a.configExampleCommand())
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a file of settings",
		Long: `Check reads a file of settings as "rowcall run" would, with the variables of the
environment, and says what is wrong with it: each fault with line and column. It
connects to nothing; "rowcall doctor --config FILE" looks at the database, too.

The exit code is 2 if the run would refuse the file.`,
		Example: `  rowcall config check rowcall.yaml`,
		Args:    takes(1, 1, "the file"),
		RunE:    func(_ *cobra.Command, args []string) error { return a.checkConfig(args[0]) },
	}
}

// checkConfig does what run does with a file before anything is touched.
func (a *app) checkConfig(file string) error {
	cmd, f := a.newRunCommand()
	if err := cmd.Flags().Set(flagConfig, file); err != nil {
		return err
	}
	if err := a.readEnvironment(cmd); err != nil {
		return err
	}
	source, err := a.checkRun(cmd, f, f.options())
	if err != nil {
		return err
	}
	var names []string
	for i := range f.to.list {
		names = append(names, f.to.at(i).called())
	}
	_, err = fmt.Fprintf(a.stdout, "%s is fine: %d settings; events of database %q go to %s\n",
		file, len(a.fromFile), source.Database(), strings.Join(names, ", "))
	return err
}

func (a *app) configExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a file that names every setting",
		Long: `Example prints a file of settings that names all of them, each with what it is for
and, as a comment, an example. It is a file to begin with.`,
		Example: `  rowcall config example > rowcall.yaml`,
		Args:    a.noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.stdout, a.exampleConfig())
			return err
		},
	}
}
