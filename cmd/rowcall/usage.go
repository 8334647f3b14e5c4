package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// A usageError is a command line or an environment that does not make sense.
// Nothing has been touched.
type usageError struct{ faults []error }

// usage returns nil if there are no faults. Nil errors are no faults.
func usage(faults ...error) error {
	if err := errors.Join(faults...); err == nil {
		return nil
	}
	e := new(usageError)
	for _, fault := range faults {
		if inner, ok := errors.AsType[*usageError](fault); ok {
			e.faults = append(e.faults, inner.faults...)
		} else if fault != nil {
			e.faults = append(e.faults, fault)
		}
	}
	return e
}

// Error implements error, with one line for each fault if there are several.
func (e *usageError) Error() string {
	if len(e.faults) == 1 {
		return e.faults[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d things are wrong:", len(e.faults))
	for _, fault := range e.faults {
		fmt.Fprintf(&b, "\n  - %s", strings.ReplaceAll(fault.Error(), "\n", "\n    "))
	}
	return b.String()
}

// Unwrap returns the faults.
func (e *usageError) Unwrap() []error { return e.faults }

// noArgs is for commands that take flags only.
func (a *app) noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasParent() {
		text := fmt.Sprintf("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage(errors.New(text))
	}
	return usage(fmt.Errorf("unknown argument %q: %s takes only flags", args[0], cmd.CommandPath()))
}
