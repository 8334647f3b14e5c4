package listeners

// An Event is one change of one row or entry, or one row of a snapshot. It is
// read-only and shared by all listeners.
type Event struct {
	Op       Op
	Cause    Cause
	Position Position
	// Schema describes the collection. It is never nil.
	Schema *Schema
	// Before is the whole old row. It is absent on create, read and truncate,
	// and on update and delete of a Postgres table whose REPLICA IDENTITY is
	// not FULL. A row that enters the result of a query is a create with the
	// old row, if there was one.
	Before Record
	// After is the new row, or a message; absent on delete and truncate. Its unchanged
	// columns are those that Postgres did not send. A row that leaves the
	// result of a query is a delete with the new row, if there is one and it
	// has the same key.
	After Record
	// OldKey holds the key columns of the old row, the others unchanged, where
	// the source sent only those: on delete, and on an update of the key.
	OldKey Record
}

// Key returns the identity of the row: of the new one where there is one.
func (e *Event) Key() Key {
	for _, r := range [...]Record{e.After, e.Before, e.OldKey} {
		if r.row != nil {
			return Key(r)
		}
	}
	return Key{}
}

// ChangedKey returns the old key of an update that changed the key.
func (e *Event) ChangedKey() (Key, bool) {
	if e.Op != Update {
		return Key{}, false
	}
	old := Key{row: e.OldKey.row}
	if old.row == nil {
		old.row = e.Before.row
	}
	if old.row == nil || old.Len() == 0 || old.Equal(e.Key()) {
		return Key{}, false
	}
	return old, true
}
