package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A substituted text is one of a file with its variables replaced.
type substituted struct {
	text   string
	values map[string]string // what stands for each ${NAME}
}

// Either $${, which stands for ${, or a variable, or what looks like the begin
// of one.
var variables = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{`)

// substitute replaces each ${NAME} by the environment's variable, as it is. An
// empty one counts as unset. Nothing in a value is replaced again.
func substitute(raw string, lookup func(string) (string, bool)) (substituted, error) {
	s := substituted{values: make(map[string]string)}
	var faults []error
	s.text = variables.ReplaceAllStringFunc(raw, func(found string) string {
		name := strings.TrimSuffix(strings.TrimPrefix(found, "${"), "}")
		switch {
		case found == "$${":
			return "${"
		case name == "":
			faults = append(faults, errors.New("${ begins a variable: write ${NAME}, or $${ for the characters themselves"))
			return ""
		}
		value, _ := lookup(name)
		if value == "" {
			faults = append(faults, fmt.Errorf("the environment variable %s is not set, or empty", name))
		}
		s.values["${"+name+"}"] = value
		return value
	})
	return s, errors.Join(faults...)
}

// hide replaces the values of variables in a message about the text, so that
// it shows no secret.
func (s *substituted) hide(message string) string {
	for name, value := range s.values {
		if value != "" {
			quoted := strconv.Quote(value)
			message = strings.ReplaceAll(message, value, name)
			message = strings.ReplaceAll(message, quoted[1:len(quoted)-1], name)
		}
	}
	return message
}
