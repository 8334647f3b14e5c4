package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// exampleConfig returns a file that names every setting.
func (a *app) exampleConfig() string {
	var b strings.Builder
	b.WriteString(`# Settings of "rowcall run --config FILE". A flag on the command line wins over
# this file, and this file over the environment. ${NAME} stands for a variable of
# the environment, as it is: within a URL it must be written as URLs have it.
`)
	run, _ := a.newRunCommand()
	for _, s := range settings() {
		if s.group != "" {
			fmt.Fprintf(&b, "\n# %s.\n", s.group)
		}
		f := run.Flag(s.key)
		fmt.Fprintf(&b, "\n%s", comment("", helpOf(f)))
		fmt.Fprintf(&b, "%s%s: %s\n", map[bool]string{false: "#"}[s.active], s.key, s.example)
	}
	b.WriteString(`
# Where the events go.

# A place is written as with --to, or as a mapping with its target and options of
# its own. Each gets everything, unless it says otherwise.
to:
  - target: nats
`)
	writeTargetExample(&b, kindNATS, "")
	b.WriteString("\n  #- target: kafka://localhost:9092\n")
	writeTargetExample(&b, kindKafka, kindNATS)
	b.WriteString("\n  #- target: amqps://localhost\n")
	writeTargetExample(&b, kindAMQP, kindKafka)
	return b.String()
}

// writeTargetExample writes the options of a kind of place, with what they are
// for unless another kind has said it.
func writeTargetExample(b *strings.Builder, kind, said string) {
	for _, s := range targetSettings() {
		switch {
		case !s.fits(kind) || s.key == "name" && kind == kindNATS:
			continue
		case said == "" || !s.fits(said) || s.key == "name":
			b.WriteString(comment("    ", s.help))
		}
		example := s.example
		if s.key == "name" {
			example += "-" + kind // no two may have the same
		}
		fmt.Fprintf(b, "    #%s: %s\n", s.key, example)
	}
}

// helpOf returns what a flag is for, with its default.
func helpOf(f *pflag.Flag) string {
	_, help := pflag.UnquoteUsage(f)
	if c, ok := f.Value.(*choice); ok {
		help += ": one of " + strings.Join(c.allowed, ", ")
	}
	if d := f.DefValue; d != "" && d != "0" && d != "[]" && !strings.Contains(help, "(default") {
		help += " (default " + d + ")"
	}
	return help
}

// comment returns a text as comment lines.
func comment(indent, text string) string {
	var b strings.Builder
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 90 {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
	return b.String()
}
