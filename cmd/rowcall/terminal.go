package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// isTerminal reports whether somebody looks at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// A palette colours words for a terminal. The zero palette does not.
type palette struct{ on bool }

// palette returns the colours for w: none unless it is a terminal, and none if
// NO_COLOR is set (no-color.org) or TERM is dumb.
func (a *app) palette(w io.Writer) palette {
	noColor, _ := a.lookup("NO_COLOR")
	kind, _ := a.lookup("TERM")
	return palette{on: isTerminal(w) && noColor == "" && kind != "dumb"}
}

// A colour is the parameter of an SGR sequence (ECMA-48 section 8.3.117).
type colour string

const (
	bold    colour = "1"
	faint   colour = "2"
	red     colour = "31"
	green   colour = "32"
	yellow  colour = "33"
	magenta colour = "35"
	cyan    colour = "36"
)

func (p palette) paint(c colour, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// utf8Locale reports whether the locale is one whose text is UTF-8 (POSIX
// Environment Variables: LC_ALL wins over LC_CTYPE wins over LANG).
func (a *app) utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v, _ := a.lookup(name); v != "" {
			v = strings.ToLower(strings.ReplaceAll(v, "-", ""))
			return strings.Contains(v, "utf8")
		}
	}
	return false
}
