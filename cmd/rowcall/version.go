package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  rowcall version",
		Args:    a.noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, buildVersion(debug.ReadBuildInfo()))
			return err
		},
	}
}

// buildVersion says what the Go tool knows of this build: the module version for
// "go install …@version", otherwise the commit.
func buildVersion(info *debug.BuildInfo, ok bool) string {
	version, commit, modified := "(unknown)", "", ""
	if ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = ", commit " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
	}
	return fmt.Sprintf("rowcall %s%s%s, %s, %s/%s", version, commit, modified, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
