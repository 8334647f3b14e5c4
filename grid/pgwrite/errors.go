package pgwrite

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/grid"
)

// An UnseenError says that a write is committed, but that its region did not
// show it: in time, or because it will never do so.
type UnseenError struct {
	Table  string
	Region string
	Tx     uint64 // its number in the database
	Err    error  // why the wait ended
}

// Error implements error.
func (e *UnseenError) Error() string {
	return fmt.Sprintf("transaction %d is committed, but region %q has not shown its change of %s: %v", e.Tx, e.Region, e.Table, e.Err)
}

// Unwrap returns why the wait ended.
func (e *UnseenError) Unwrap() error { return e.Err }

// An UnknownError says that the connection was lost during a commit, and that
// no region has shown the transaction since. It may be committed or not.
type UnknownError struct {
	Tx  uint64 // its number in the database
	Err error  // what the commit returned
}

// Error implements error.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("whether transaction %d is committed is unknown: %v; read the rows in the database before you try again", e.Tx, e.Err)
}

// Unwrap returns what the commit returned.
func (e *UnknownError) Unwrap() error { return e.Err }

// A ConstraintError says which constraint of the database a write violates.
// Nothing was written.
type ConstraintError struct {
	Table      string
	Constraint string // its name; for a NOT NULL that of the column
	Code       string // SQLSTATE, such as "23514" for a check
	Err        error  // the server's
}

// Error implements error.
func (e *ConstraintError) Error() string {
	return fmt.Sprintf("%s violates %q: %v", e.Table, e.Constraint, e.Err)
}

// Unwrap returns the server's error.
func (e *ConstraintError) Unwrap() error { return e.Err }

var errSuppressed = errors.New("the database stored nothing: a trigger or a rule of the table has put the write aside")

const (
	uniqueViolation      = "23505"
	notNullViolation     = "23502"
	classConstraint      = "23" // integrity constraint violation
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

// explain gives the server's error a type that callers decide by.
func (t *target) explain(err error, key any, insert bool) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return err
	case insert && pgErr.Code == uniqueViolation && pgErr.ConstraintName == t.primary:
		return &grid.ExistsError{Key: key}
	case len(pgErr.Code) == 5 && pgErr.Code[:2] == classConstraint:
		name := pgErr.ConstraintName
		if pgErr.Code == notNullViolation {
			name = pgErr.ColumnName
		}
		return &ConstraintError{Table: t.name, Constraint: name, Code: pgErr.Code, Err: err}
	}
	return err
}

// worthRetrying reports whether the server gave a transaction up in favour of
// another one.
func worthRetrying(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == serializationFailure || pgErr.Code == deadlockDetected)
}
