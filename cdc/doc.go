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
// # What is not promised
//
// Without REPLICA IDENTITY FULL, Postgres does not send old rows, only old
// keys. A table without a key has no replica identity: its inserts arrive,
// while Postgres itself refuses updates and deletes. Changes of sequences and
// of the schema itself are not part of logical replication. Rows of tables
// that are added to an existing publication are not read, only their changes.
//
// Types other than numbers, booleans, text, uuid, json, date and time, bytea
// and arrays of these appear in JSON as their text.
package cdc
