package sinks

import "fmt"

// A HistoryError says that a log does not hold what a reader needs. If
// [Source.Run] returns it, it does not hold the whole present state either, from
// which the reader could begin anew.
type HistoryError struct {
	Log      string // its name, such as "stream CDC_SHOP"
	Wanted   string // what is missing, such as "messages from 3 on"; "" for the beginning
	Held     string // what the log holds, such as "4 to 9"
	Replaced bool   // it is another log than before, or one that was restored
}

// Error implements error.
func (e *HistoryError) Error() string {
	wanted := e.Wanted
	if wanted == "" {
		wanted = "messages from the first on"
	}
	what := fmt.Sprintf("its %s are gone before they were read", wanted)
	if e.Replaced {
		what = "it was deleted and made anew, or restored from a backup"
	}
	return fmt.Sprintf("%s: %s, and what it holds now (%s) does not begin with the whole state; have its source write a snapshot (start a new one), have the broker keep more history, or read with Start.Oldest what is left",
		e.Log, what, e.Held)
}
