package cdc

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestATableThatIsDroppedWhileTablesAreListedEndsNothing(t *testing.T) {
	dropped := fmt.Errorf("list: %w", &pgconn.PgError{Code: "XX000", Routine: "relation_open"})
	other := fmt.Errorf("list: %w", &pgconn.PgError{Code: "XX000", Routine: "ReorderBufferProcessTXN"})
	for name, test := range map[string]struct {
		fails []error // the calls, the last one again and again
		calls int
	}{
		"nothing":      {fails: []error{nil}, calls: 1},
		"once":         {fails: []error{dropped, nil}, calls: 2},
		"another":      {fails: []error{other}, calls: 1},
		"then another": {fails: []error{dropped, other}, calls: 2},
		"for ever":     {fails: []error{dropped}, calls: 10},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := unlessRaced(func() error {
				calls++
				return test.fails[min(calls, len(test.fails))-1]
			})
			if want := test.fails[len(test.fails)-1]; !errors.Is(err, want) || calls != test.calls {
				t.Errorf("unlessRaced() = %v after %d calls, want %v after %d", err, calls, want, test.calls)
			}
		})
	}
}
