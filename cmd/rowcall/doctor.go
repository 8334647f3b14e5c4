package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

func (a *app) doctorCommand() *cobra.Command {
	var source *sourceFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor --database-url URL",
		Short: "Check whether a database is ready",
		Long: `Doctor looks at a database as "rowcall run" with the same flags would, changes
nothing, and says what is fine, what to know, what to improve, and what is in the
way, each with its remedy. The exit code is 1 if the run could not work.`,
		Example: `  rowcall doctor --database-url postgres://app@localhost/shop
  rowcall doctor --database-url postgres://app@localhost/shop --tables public.seats --json
  rowcall doctor --config rowcall.yaml`,
		Args: a.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			faults := []error{required(cmd, "database-url")}
			if source.url != "" {
				_, err := cdc.New(source.url, source.options())
				faults = append(faults, err)
			}
			if err := usage(faults...); err != nil {
				return err
			}
			findings, err := cdc.Check(cmd.Context(), source.url, source.options())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printFindingsJSON(findings)
			}
			return a.printFindings(findings)
		},
	}
	source = addSourceFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as a JSON array")
	addConfigFlag(cmd)
	return cmd
}

var errNotReady = errors.New("the database is not ready: see above")

// A mark shows the level of a finding.
type mark struct {
	utf8, ascii string
	colour      colour
}

func markOf(level cdc.Level) mark {
	switch level {
	case cdc.OK:
		return mark{"✓", "ok  ", green}
	case cdc.Info:
		return mark{"·", "info", cyan}
	case cdc.Warning:
		return mark{"!", "warn", yellow}
	case cdc.Fatal:
	}
	return mark{"✗", "FAIL", red}
}

func (a *app) printFindings(findings []cdc.Finding) error {
	colours := a.palette(a.stdout)
	plain := !isTerminal(a.stdout) || !a.utf8Locale()
	var counts [cdc.Fatal + 1]int
	for _, f := range findings {
		counts[f.Level]++
		m := markOf(f.Level)
		sign := m.utf8
		if plain {
			sign = m.ascii
		}
		indent := strings.Repeat(" ", len([]rune(sign))+1)
		fmt.Fprintf(a.stdout, "%s %s\n", colours.paint(m.colour, sign), indented(f.Text, indent))
		if f.Remedy != "" {
			fmt.Fprintf(a.stdout, "%s%s\n", indent, colours.paint(faint, indented("-> "+f.Remedy, indent+"   ")))
		}
	}
	fmt.Fprintf(a.stdout, "\n%d fine, %d to know, %d to improve, %d in the way\n",
		counts[cdc.OK], counts[cdc.Info], counts[cdc.Warning], counts[cdc.Fatal])
	if counts[cdc.Fatal] > 0 {
		return errNotReady
	}
	return nil
}

// indented puts indent before every line but the first.
func indented(text, indent string) string { return strings.ReplaceAll(text, "\n", "\n"+indent) }

func (a *app) printFindingsJSON(findings []cdc.Finding) error {
	text, err := json.MarshalIndent(findings, "", "  ")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(a.stdout, "%s\n", text); err != nil {
		return err
	}
	if slices.ContainsFunc(findings, func(f cdc.Finding) bool { return f.Level == cdc.Fatal }) {
		return errNotReady
	}
	return nil
}
