// Package pgwrite writes through a mirror to its Postgres table.
//
// A region of [grid.Mirror] or of a [grid.Group] is read-only. A [Table] is the
// other half: its Put, Insert, Update and Delete change the row in the
// database, and return when the region shows the change that came back. So the
// database decides, listeners hear of a change once and after its commit, and
// who has written reads the own write from the region.
//
//	w := pgwrite.New(pool, nil)
//	seats, err := pgwrite.Bind(ctx, w, region, "public.seats")
//	_, err = seats.Put(ctx, "12A", Seat{Price: 40})
//	seat, ok := region.Get("12A") // the new one
//
// [Writer.Do] does so for several tables in one transaction of the database.
//
// [Behind] goes the other way: it is a listener that stores in a table what has
// happened in a region.
//
// # What is promised
//
// A write that returns nil is committed, and the region shows it, or a later
// state of the row. One that returns an error has changed nothing, except for
// two cases: an [*UnseenError] says that the write is committed and that the
// region has not shown it, and an [*UnknownError] that the connection was lost
// during the commit.
//
// Nothing waits for ever: [Options].Timeout bounds the wait for the region, if
// the context does not end before.
//
// # What it needs
//
// The mirror's batches must carry the numbers of Postgres transactions, as
// those of package cdc do, and of a firehose that is read back. The table
// needs a primary key, which is the region's key. Columns that the region's
// value has no field for keep what they have; in a new row they get their
// defaults. Generated columns are not written.
//
// A listener of the region may write through, too; what it waits for is a
// later batch, which comes unless the listener itself has filled the region's
// feed by being slow.
package pgwrite
