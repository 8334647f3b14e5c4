package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A config is what a file of settings says, checked.
type config struct {
	file    string
	values  []configValue
	to      []*targetOptions // nil if the file does not say
	toPlace place
}

// A configValue is what it says of one flag.
type configValue struct {
	setting *setting
	at      place    // of the value
	texts   []string // several for a list
}

// keyTo is the key that lists places with their options.
const keyTo = "to"

// flagConfig is the flag that names the file; it is no setting.
const flagConfig = "config"

func addConfigFlag(cmd *cobra.Command) {
	cmd.Flags().String(flagConfig, "", "`file` with settings, in YAML; flags win over it, and it over the environment (see \"rowcall config example\")")
}

// readConfig reads and checks a file. The error names everything that is wrong
// with it, each with its place.
func (a *app) readConfig(file string) (*config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usage(fmt.Errorf("--config: %w", err))
	}
	root, err := parseYAML(file, text)
	if err != nil {
		return nil, err
	}
	c := &config{file: file}
	run, _ := a.newRunCommand()
	all := settings()
	var faults []error
	for _, m := range root.members {
		if m.key == keyTo {
			c.toPlace = m.at
			var toFaults []error
			c.to, toFaults = a.readTargets(m.value)
			faults = append(faults, toFaults...)
			continue
		}
		i := slices.IndexFunc(all, func(s setting) bool { return s.key == m.key })
		if i < 0 {
			faults = append(faults, m.at.errorf("unknown key %q; %s", m.key, nearest(m.key, settingKeys())))
			continue
		}
		v := configValue{setting: &all[i], at: m.value.at}
		flag := run.Flag(m.key)
		var err error
		if v.texts, err = a.readValue(m.value, kindOf(flag.Value), func(text string) error { return v.try(flag, text) }); err != nil {
			faults = append(faults, err)
			continue
		}
		c.values = append(c.values, v)
	}
	return c, usage(faults...)
}

// try finds out whether a flag takes a text.
func (v *configValue) try(flag *pflag.Flag, text string) error {
	if err := setFlag(flag, text); err != nil {
		return err
	}
	if v.setting.check != nil {
		return v.setting.check(text)
	}
	return nil
}

// setFlag is Set with an error that does not quote the text.
func setFlag(flag *pflag.Flag, text string) error {
	err := flag.Value.Set(text)
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		return fmt.Errorf("want %s: %w", kindOf(flag.Value).wants(), number.Err)
	}
	return err
}

// readValue returns the texts of a value of one kind, with variables replaced.
// Each is tried.
func (a *app) readValue(n *node, kind valueKind, try func(string) error) ([]string, error) {
	if n.kind == nodeList && kind.list() {
		var texts []string
		var faults []error
		for _, item := range n.items {
			one, err := a.readScalar(item, valueText, try)
			texts, faults = append(texts, one), append(faults, err)
		}
		if len(n.items) == 0 {
			faults = append(faults, n.at.errorf("the list is empty; leave the key out for the default"))
		}
		return texts, usage(faults...)
	}
	text, err := a.readScalar(n, kind, try)
	return []string{text}, err
}

func (a *app) readScalar(n *node, kind valueKind, try func(string) error) (string, error) {
	s, err := substitute(n.text, a.lookup)
	switch {
	case err != nil:
		return "", n.at.errorf("%w", err)
	case n.kind == nodeNothing:
		return "", n.at.errorf("there is no value; want %s, or leave the key out for the default", kind.wants())
	case !kind.takes(n.kind) && (len(s.values) == 0 || n.kind != nodeText):
		text := fmt.Sprintf("this is %s; want %s", n.kind, kind.wants())
		if kind.takes(nodeText) && n.text != "" {
			text += fmt.Sprintf(": put it in quotes, %q", n.text)
		}
		return "", n.at.errorf("%s", text)
	}
	if err := try(s.text); err != nil {
		return "", n.at.errorf("%s", s.hide(strings.TrimPrefix(err.Error(), "cdc: options: ")))
	}
	return s.text, nil
}

// apply sets the flags of cmd that the command line left alone. The file may
// say more than a command has flags for.
func (a *app) apply(c *config, cmd *cobra.Command) error {
	var faults []error
	run := cmd.Name() == "run"
	for _, v := range c.values {
		flag := cmd.Flag(v.setting.key)
		if flag == nil || flag.Changed || !run && !v.setting.ofSource {
			continue
		}
		for _, text := range v.texts {
			if err := setFlag(flag, text); err != nil { // it was tried, but a flag of this name may be another here
				faults = append(faults, v.at.errorf("%w", err))
			}
		}
		flag.Changed = true
		a.fromFile[flag.Name] = v.at
	}
	if flag := cmd.Flag(keyTo); run && c.to != nil && !flag.Changed {
		if list, ok := flag.Value.(*targets); ok {
			list.take(c.to)
		}
		flag.Changed = true
		a.fromFile[keyTo] = c.toPlace
	}
	return usage(faults...)
}

func settingKeys() []string {
	keys := []string{keyTo}
	for _, s := range settings() {
		keys = append(keys, s.key)
	}
	return keys
}

// nearest says which words there are, or which one was meant.
func nearest(word string, words []string) string {
	probe := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, w := range words {
		probe.AddCommand(&cobra.Command{Use: w, Run: func(*cobra.Command, []string) {}})
	}
	if near := probe.SuggestionsFor(word); len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	return "there are " + strings.Join(slices.Sorted(slices.Values(words)), ", ")
}
