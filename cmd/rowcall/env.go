package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// variable returns the environment variable that stands for a flag.
func variable(flag string) string {
	return "ROWCALL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnvironment sets the flags of cmd that the command line left alone and
// the environment does not. It reports every bad value at once.
func (a *app) readEnvironment(cmd *cobra.Command) error {
	a.fromEnv, a.fromFile = make(map[string]bool), make(map[string]place)
	var faults []error
	if err := a.readFile(cmd); err != nil {
		faults = append(faults, err)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == "version" || f.Name == flagConfig {
			return
		}
		value, found := a.lookup(variable(f.Name))
		if !found || value == "" {
			return
		}
		if err := f.Value.Set(value); err != nil {
			if number, ok := errors.AsType[*strconv.NumError](err); ok {
				err = fmt.Errorf("not a valid %s: %w", f.Value.Type(), number.Err)
			}
			faults = append(faults, fmt.Errorf("environment variable %s (the flag --%s): %q: %w", variable(f.Name), f.Name, value, err))
			return
		}
		f.Changed = true
		a.fromEnv[f.Name] = true
	})
	return usage(faults...)
}

// readFile sets the flags of cmd that the command line left alone and a file of
// settings does not.
func (a *app) readFile(cmd *cobra.Command) error {
	f := cmd.Flag(flagConfig)
	if f == nil {
		return nil
	}
	file := f.Value.String()
	if !f.Changed {
		file, _ = a.lookup(variable(flagConfig))
	}
	if file == "" {
		return nil
	}
	c, err := a.readConfig(file)
	if err != nil {
		return err
	}
	return a.apply(c, cmd)
}

// required returns a fault for each of these flags that has no value.
func required(cmd *cobra.Command, flags ...string) error {
	var faults []error
	for _, name := range flags {
		if cmd.Flag(name).Value.String() == "" {
			faults = append(faults, fmt.Errorf("--%s is missing (or %s in the environment)", name, variable(name)))
		}
	}
	return usage(faults...)
}

// exclude returns a fault for each of the others that was given although flag
// rules it out; why says what makes it so. What has less weight gives way
// silently, in either direction: the environment to the file, and both to the
// command line.
func (a *app) exclude(cmd *cobra.Command, flag, why string, others ...string) error {
	var faults []error
	for _, other := range others {
		switch {
		case !cmd.Flag(flag).Changed || !cmd.Flag(other).Changed:
		case a.weight(other) < a.weight(flag):
			reset(cmd.Flag(other))
		case a.weight(flag) < a.weight(other):
			reset(cmd.Flag(flag))
		default:
			faults = append(faults, fmt.Errorf("%s cannot go with %s: %s", a.spelling(other), a.spelling(flag), why))
		}
	}
	return usage(faults...)
}

// weight orders where a flag may come from.
func (a *app) weight(flag string) int {
	if _, ok := a.fromFile[flag]; ok {
		return 1
	}
	if a.fromEnv[flag] {
		return 0
	}
	return 2
}

// needs returns a fault if flag was given on the command line without the other
// one. In a file and in the environment, which serve several commands, it may
// stand alone.
func (a *app) needs(cmd *cobra.Command, flag, other string) error {
	if !cmd.Flag(flag).Changed || a.weight(flag) < 2 || cmd.Flag(other).Changed {
		return nil
	}
	return usage(fmt.Errorf("--%s needs --%s", flag, other))
}

// spelling names a flag as it was given.
func (a *app) spelling(flag string) string {
	if at, ok := a.fromFile[flag]; ok {
		return at.String() + ": " + flag
	}
	if a.fromEnv[flag] {
		return variable(flag)
	}
	return "--" + flag
}

func reset(f *pflag.Flag) {
	if list, ok := f.Value.(*targets); ok {
		list.reset()
	} else {
		_ = f.Value.Set(f.DefValue) // a default is valid
	}
	f.Changed = false
}
