package main

import (
	"fmt"
	"strings"
)

// settingsTable returns the settings for the documentation, in Markdown.
func (a *app) settingsTable() string {
	var b strings.Builder
	run, _ := a.newRunCommand()
	b.WriteString("| key | what it is for | example |\n|---|---|---|\n")
	for _, s := range settings() {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` |\n", s.key, markdown(helpOf(run.Flag(s.key))), markdown(s.example))
	}
	b.WriteString("| `to` | where the events go: one place, or a list (default nats) | see below |\n")
	b.WriteString("\n| key of a place | places | what it is for | example |\n|---|---|---|---|\n")
	fmt.Fprintf(&b, "| `%s` | all | where it is, as with --to | `nats` |\n", keyTarget)
	for _, s := range targetSettings() {
		places := "all"
		if s.of != nil {
			places = strings.Join(s.of, ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` |\n", s.key, places, markdown(s.help), markdown(s.example))
	}
	return b.String()
}

// markdown keeps a text within one cell.
func markdown(text string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "<", `\<`).Replace(text)
}
