package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/expression"
)

// A whereFlag holds a condition for events, see package expression.
type whereFlag struct{ filter *expression.Filter }

const whereUsage = "only the events for which this `condition` holds, such as 'op == \"delete\" or after.price > 30'"

// String implements pflag.Value.
func (w *whereFlag) String() string {
	if w.filter == nil {
		return ""
	}
	return w.filter.String()
}

// Set implements pflag.Value. No text is no condition.
func (w *whereFlag) Set(text string) error {
	w.filter = nil
	if strings.TrimSpace(text) == "" {
		return nil
	}
	filter, err := expression.Compile(text)
	if err != nil {
		return err
	}
	if filter.Uses("tag") {
		return errors.New("it asks for the tag, which the writer of a region gives to listeners in the same process: rows of a database have none, and stored events do not carry it")
	}
	w.filter = filter
	return nil
}

// Type implements pflag.Value.
func (w *whereFlag) Type() string { return "condition" }

// and returns what keeps the events for which all of the conditions hold, nil
// if there is none. It is for [listeners.SubscribeOptions].FilterTx: what a
// condition cannot decide about ends the subscription.
func (w *whereFlag) and(other *whereFlag) func(*listeners.Event, listeners.Tx) bool {
	switch {
	case w.filter == nil && other.filter == nil:
		return nil
	case w.filter == nil:
		return other.filter.KeepTx
	case other.filter == nil:
		return w.filter.KeepTx
	}
	return func(e *listeners.Event, tx listeners.Tx) bool {
		return w.filter.KeepTx(e, tx) && other.filter.KeepTx(e, tx)
	}
}

// explainWhere puts the remedy to the error of a condition that an event has
// refuted; it leaves others alone.
func explainWhere(err error) error {
	wrong, ok := errors.AsType[*expression.MatchError](err)
	if panicked, is := errors.AsType[*listeners.PanicError](err); is && !ok {
		cause, _ := panicked.Value.(error)
		wrong, ok = errors.AsType[*expression.MatchError](cause)
	}
	if !ok {
		return err
	}
	return fmt.Errorf("--where cannot be decided: %w; ask for table and operation first, as in collection == %q and op in [\"create\", \"update\"] and …", wrong, wrong.Collection)
}
