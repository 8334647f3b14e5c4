package jetstream

import "fmt"

// A HistoryError says that a stream does not hold what a reader needs, and not
// the whole present state either, from which it could begin anew.
type HistoryError struct {
	Stream      string
	Wanted      uint64 // the first sequence that is missing; 0 for the beginning
	First, Last uint64 // what the stream holds
	Replaced    bool   // it is another stream than before, or one that was restored
}

// Error implements error.
func (e *HistoryError) Error() string {
	what := fmt.Sprintf("its messages from %d on are gone before they were read", max(e.Wanted, 1))
	if e.Replaced {
		what = "it was deleted and made anew, or restored from a backup"
	}
	return fmt.Sprintf("stream %s: %s, and what it holds now (%d to %d) does not begin with the whole state; have its source write a snapshot (start a new stream), raise max_age, max_bytes and max_msgs, or read with Start.Oldest what is left",
		e.Stream, what, e.First, e.Last)
}
