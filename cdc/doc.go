// Package cdc reads the committed changes of a PostgreSQL database (14 or
// later) from a logical replication slot and delivers them as batches of
// package listeners: one transaction, one batch, in commit order.
//
//	src, err := cdc.New("postgres://app@localhost/shop", &cdc.Options{Tables: []string{"public.seats"}})
//	sub, err := src.Table("public.seats").Subscribe("repricer", listeners.Handlers[Seat]{OnUpdate: reprice}, nil)
//	err = src.Run(ctx)
//
// # What is promised
//
// The first run creates what is missing: a publication, a snapshot of the
// tables (delivered as Reset, Snapshot and Live batches with Op Read), and the
// slot, at exactly the snapshot's point. The slot becomes permanent when the
// snapshot is stored, so a run that dies before begins again, and one that
// dies later goes on. Later runs stream from the slot.
//
// The slot is confirmed only up to the end of the last transaction that every
// subscription (but the Ephemeral ones) has handled or stored, together with
// everything before it. What is not confirmed is delivered again after a
// crash, with the same positions: at least once for a plain listener, once in
// effect for one that remembers positions, as the sinks do.
//
// Rows are read from the wire without decoding; a column is decoded when a
// listener asks for it. A value that Postgres did not send, because an update
// left a TOASTed column as it was, is Unchanged, never null; with REPLICA
// IDENTITY FULL it is filled in from the old row. A table's columns are those
// of the stream, at the time of the change.
//
// Memory is bounded by MaxBytes for batches that wait, whatever the size of a
// transaction or the slowness of a listener. Then the socket is not read,
// while status updates go on so that the server does not give up.
//
// # Catching up
//
// A slot that is more than CatchUpBytes behind when a connection begins is
// drained with SQL functions, about twice as fast as by streaming, and streaming
// goes on near the end. The events, their positions and their batches are the
// same, and so is what is promised: the functions consume a temporary copy of
// the slot, while the slot itself follows what is stored. That needs no
// privilege beyond those for streaming, and one free slot; where it is refused,
// the backlog is streamed.
//
// # What is not promised
//
// Without REPLICA IDENTITY FULL, Postgres does not send old rows, only old
// keys. A table without a key has no replica identity: its inserts arrive,
// while Postgres itself refuses updates and deletes. Changes of sequences and
// of the schema itself are not part of logical replication. Rows of tables
// that are added to an existing publication are not read, only their changes.
//
// # Values
//
// A record's JSON equals to_jsonb(row) for every type, in a session with
// TimeZone UTC, DateStyle ISO, IntervalStyle postgres and bytea_output hex:
// numbers keep their digits, arrays, composites and hstore are JSON arrays and
// objects, domains are what they are over. The exception is a type with a cast
// to json of its own, other than hstore's: to_jsonb uses the cast, a record has
// the type's text.
//
// Types that are not built in are looked up in the catalog, which says what
// they are now, while a change may be older. So it is not promised that a
// composite which was altered between a change and its reading appears as it was
// then: with another number of fields its value is text, with the same number
// its fields have their new names. A renamed field keeps its old name until the
// server describes the table again, which it does on each new connection and
// after a change to the table. A type that is gone is text.
package cdc
