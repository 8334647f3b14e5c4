// Package expression makes filters of text, for [listeners.SubscribeOptions] and
// for command lines: which events a listener hears.
//
//	collection == "public.seats" and (op == "delete" or after.price > 30)
//
// The language is that of github.com/expr-lang/expr. An expression must be a
// condition. It knows:
//
//	op            "create", "update", "delete", "truncate", "read" or "message"
//	cause         "write", "snapshot", "expire", …: see [listeners.Cause]
//	collection    "public.seats", or the name of a region
//	key.id        a column of the key
//	before.price  a column of the old row
//	after.price   a column of the new row
//	txid          the number of the transaction
//	time          when it was committed, a time
//	tag           what the writer gave along, see [listeners.Tx]
//	changed("price")    the update has changed the column
//	unchanged("notes")  the source did not send the column, since it did not change
//
// # What is promised
//
// Only the columns that are asked for are decoded. Integers are exact; numeric
// is an integer where it is one that fits into 64 bits, otherwise a floating
// point number; other types are as [listeners.Value.Scan] stores them into any:
// texts, booleans, times, and texts for what has no better type. NULL is nil,
// and so is a column of a row that is not there (before of a create) and one
// that was not sent.
//
// Changed is true for every column of a create, a delete and a read. Of an
// update without the old row, which Postgres sends only for tables with REPLICA
// IDENTITY FULL, it is true for what was sent.
//
// What is wrong with the text is found by [Compile], and told with line and
// column. What only an event can show, such as a column that its table does not
// have or a text compared with a number, is an error of [Filter.Match], and
// ends a subscription that filters by it: to let the event through would be as
// wrong as to leave it out.
package expression
