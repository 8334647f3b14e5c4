package cdc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A SetupError says why a source cannot work with this database, and what to
// do about it. Nothing has been created or changed.
type SetupError struct {
	Findings []Finding // the fatal ones, at least one
}

// Error implements error, with one line per finding.
func (e *SetupError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.Text
		if f.Remedy != "" {
			lines[i] += "; " + f.Remedy
		}
	}
	return strings.Join(lines, "\n")
}

// A SlotError says that the slot cannot be read any more, or is not the one
// that was read before: going on would lose changes silently. [DropSlot]
// returns one if it leaves a slot alone; then Err may be [ErrSlotInUse] or
// [ErrNoSlot].
type SlotError struct {
	Slot   string
	Reason string
	Remedy string
	Err    error
	// Lost says that changes were lost, so that only a new snapshot helps:
	// [LostSlotResnapshot] would have begun again.
	Lost bool

	server identity // if it is another cluster or history
	drop   bool     // the slot is to be dropped whatever the policy
}

// Error implements error.
func (e *SlotError) Error() string {
	text := fmt.Sprintf("slot %q: %s", e.Slot, e.Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the cause, nil if there is none.
func (e *SlotError) Unwrap() error { return e.Err }

// Why [DropSlot] leaves a slot alone, for [errors.Is].
var (
	ErrSlotInUse = errors.New("the slot is in use")
	ErrNoSlot    = errors.New("the slot does not exist")
)

// A DecodeError says that the server sent something that this version cannot
// read. It is fatal: to skip it would lose an event.
type DecodeError struct {
	LSN     LSN  // of the message
	Message byte // its type
	Err     error
}

// Error implements error.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("cdc: message %q at %s: %v", e.Message, e.LSN, e.Err)
}

// Unwrap returns the cause.
func (e *DecodeError) Unwrap() error { return e.Err }

// sqlState returns the SQLSTATE of a server's error, "" if it is none.
func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
