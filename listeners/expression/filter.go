package expression

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/rowcall/rowcall/listeners"
)

// A SyntaxError says what is wrong with an expression.
type SyntaxError struct {
	Line, Column int // both from 1
	Message      string
	Text         string // the line
}

// Error implements error. It has two lines more, which show the place.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("expression, line %d, column %d: %s\n  %s\n  %s^", e.Line, e.Column, e.Message, e.Text, strings.Repeat(" ", e.Column-1))
}

// A MatchError says which event an expression cannot decide about, and why.
type MatchError struct {
	Collection string
	Position   listeners.Position
	Err        error
}

// Error implements error.
func (e *MatchError) Error() string {
	return fmt.Sprintf("expression on the event of %s at %s: %v", e.Collection, e.Position, e.Err)
}

// Unwrap returns the cause.
func (e *MatchError) Unwrap() error { return e.Err }

// A Filter is a compiled expression. Any number of goroutines may use it.
type Filter struct {
	text    string
	names   map[string]struct{} // that the text mentions
	program *vm.Program
	runs    sync.Pool // of *run
}

// A run is the memory of one evaluation.
type run struct {
	vm  vm.VM
	env env
}

// Compile reads an expression. The error is a [SyntaxError].
func Compile(text string) (*Filter, error) {
	names := make(map[string]struct{})
	options := append([]expr.Option{
		expr.Env(new(env)), expr.AsBool(), expr.Patch(patcher{names}),
	}, functions()...)
	program, err := expr.Compile(text, options...)
	if err != nil {
		return nil, explain(text, err)
	}
	return &Filter{text: text, names: names, program: program}, nil
}

func explain(text string, err error) error {
	at, ok := errors.AsType[*file.Error](err)
	lines := strings.Split(text, "\n")
	if !ok || at.Line < 1 || at.Line > len(lines) {
		return &SyntaxError{Line: 1, Column: 1, Message: err.Error(), Text: lines[0]}
	}
	return &SyntaxError{Line: at.Line, Column: at.Column + 1, Message: at.Message, Text: lines[at.Line-1]}
}

// String returns the text.
func (f *Filter) String() string { return f.text }

// Uses reports whether the expression mentions one of the names that it knows,
// such as "tag": somebody may not have what it stands for.
func (f *Filter) Uses(name string) bool {
	_, ok := f.names[name]
	return ok
}

// Match reports whether an event fits. The error is a [MatchError]. The
// transaction is that of the event's batch.
func (f *Filter) Match(e *listeners.Event, tx listeners.Tx) (bool, error) {
	r, ok := f.runs.Get().(*run)
	if !ok {
		r = new(run)
	}
	defer f.runs.Put(r)
	r.env.set(e, tx)
	out, err := r.vm.Run(f.program, &r.env)
	if err != nil {
		if at, ok := errors.AsType[*file.Error](err); ok {
			err = fmt.Errorf("column %d: %s", at.Column+1, at.Message)
			if at.Prev != nil {
				err = fmt.Errorf("column %d: %w", at.Column+1, at.Prev)
			}
		}
		return false, &MatchError{Collection: e.Schema.Collection(), Position: e.Position, Err: err}
	}
	return out.(bool), nil //nolint:errcheck,forcetypeassert // AsBool sees to it
}

// Keep is for [listeners.SubscribeOptions].Filter: Match without the
// transaction, of which txid, time and tag are zero. It panics with the
// [MatchError], which ends the subscription with it.
func (f *Filter) Keep(e *listeners.Event) bool { return f.KeepTx(e, listeners.Tx{}) }

// KeepTx is for [listeners.SubscribeOptions].FilterTx: Keep with the
// transaction.
func (f *Filter) KeepTx(e *listeners.Event, tx listeners.Tx) bool {
	ok, err := f.Match(e, tx)
	if err != nil {
		panic(err)
	}
	return ok
}

// An env is what an expression sees.
type env struct {
	Op         string    `expr:"op"`
	Cause      string    `expr:"cause"`
	Collection string    `expr:"collection"`
	Key        row       `expr:"key"`
	Before     row       `expr:"before"`
	After      row       `expr:"after"`
	TxID       int       `expr:"txid"`
	Time       time.Time `expr:"time"`
	Tag        string    `expr:"tag"`

	event *listeners.Event
}

func (v *env) set(e *listeners.Event, tx listeners.Tx) {
	*v = env{
		Op: e.Op.String(), Cause: e.Cause.String(), Collection: e.Schema.Collection(),
		Before: row{record: e.Before}, After: row{record: e.After}, Key: row{record: e.After, key: true},
		TxID: int(tx.ID), Time: tx.Time, Tag: tx.Tag,
		event: e,
	}
	for _, r := range [...]listeners.Record{e.After, e.Before, e.OldKey} {
		if r.Exists() {
			v.Key.record = r
			break
		}
	}
}
