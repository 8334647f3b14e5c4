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
// A snapshot is all tables at one point of the log, also while others write:
// every row is read or arrives as a change, never both. It comes table by table.
// Large tables are read by several connections (SnapshotWorkers), so a table's
// rows are in no order.
//
// With StateDir, a run that dies before the snapshot is stored does not begin
// again: tables that are stored are not read any more. The next run delivers
// what happened to them since as Changes, then a Reset whose Collections are the
// other tables, their rows at a new point, and Live. The table that was being
// read starts again from its beginning; so does everything if no table was
// stored, or what was kept does not fit any more. A run that goes on with a
// snapshot shares nothing of it with subscriptions that want the Current state:
// they get their own. When connections are lost and the run lives, the same
// happens within it, and there Changes of complete tables may come between two
// Resets.
//
// The slot is confirmed only up to the end of the last transaction that every
// subscription (but the Ephemeral ones) has handled or stored, together with
// everything before it. What is not confirmed is delivered again after a
// crash, with the same positions: at least once for a plain listener, once in
// effect for one that remembers positions, as the sinks do.
//
// A snapshot locks its tables against changes of their columns while it reads
// (ACCESS SHARE, as each SELECT does), and is taken again if a table was altered
// or truncated between the snapshot and the lock.
//
// Rows are read from the wire without decoding; a column is decoded when a
// listener asks for it. A value that Postgres did not send, because an update
// left a TOASTed column as it was, is Unchanged, never null; with REPLICA
// IDENTITY FULL it is filled in from the old row. A table's columns are those
// of the stream, at the time of the change. Only the key of a table with
// REPLICA IDENTITY FULL or NOTHING is not in the stream: it is the primary key of
// now, under the names of then if nothing but names has changed; otherwise the
// record has no key, and the Logger a warning.
//
// A large transaction is received while it is in progress, spooled to disk, and
// delivered after its commit, without what was rolled back to a savepoint.
//
// Memory is bounded by MaxBytes for batches that wait, whatever the size of a
// transaction or the slowness of a listener. Then the socket is not read,
// while status updates go on so that the server does not give up.
//
// # Messages, outbox and backfills
//
// What an application says with pg_logical_emit_message is an event with
// [listeners.Message] if Options.Messages wants its prefix: collection
// "_messages.<prefix>" ("_" for an empty prefix), no key, and the columns prefix,
// content (bytea) and text, which is the content if that is UTF-8 without a
// zero byte, otherwise null. A transactional message is an event of its
// transaction, in its place among the rows, and is gone if that rolls back. Any
// other is said at once, even if the transaction rolls back later; it is a batch
// of its own, in order with the transactions, and its batch has a zero Tx,
// since Postgres tells neither time nor transaction. All messages of the
// database count for the positions within a transaction, wanted or not.
//
// Inserts into a table of Options.Outbox are messages, too; see [Outbox].
//
// Rows can be read again at any time, while changes go on: see
// [RequestBackfill] and [Source.Backfill]. They come as Snapshot batches without
// Reset and Live, at one point between the transactions, consistent with all that
// came before; changes wait while they are read. A source that is interrupted by
// a lost connection may deliver the first of them twice. CaughtUp waits for a
// backfill that was asked for before.
//
// Whoever may connect to the database may write a message, and so ask for a
// backfill of published tables. Its condition can compare columns and constants,
// no more. The source's sessions look for functions and operators in pg_catalog
// alone (search_path), so that names of other schemas are written out where a
// value's text holds one (regclass and the like).
//
// # A slot that is lost
//
// Before it reads, at each start and each reconnect, a source compares the
// server and the slot with what it left: the cluster, the history (timeline) of
// it, and the position that was confirmed. With a StateDir this holds across
// processes, since the position is on disk before the server hears of it. A
// slot that was dropped, recreated, read by somebody else or invalidated, and a
// server whose history lacks what was read, end the run with a [SlotError] whose
// Lost is true: changes are missing. [LostSlotResnapshot] begins again instead,
// in the same run, with a Reset and the rows as they stand. Either way nothing
// is left out silently.
//
// Positions never go back. A promoted standby that has all that was read goes
// on with the same positions; after a fork they get a new epoch, which the
// StateDir remembers, and another cluster has its own, later one. Where that
// cannot be had (no StateDir, an older cluster), the source refuses.
//
// A standby can be read, too, from Postgres 16 on. Its publication is made on
// the primary. From 17 on, Failover has standbys keep the slot in step.
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
// that are added to an existing publication are not read without a backfill,
// only their changes.
//
// # Values
//
// A record's JSON equals to_jsonb(row) for every type, in a session with
// TimeZone UTC, DateStyle ISO, IntervalStyle postgres, bytea_output hex and
// search_path pg_catalog:
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
