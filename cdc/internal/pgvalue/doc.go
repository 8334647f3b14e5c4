// Package pgvalue turns a PostgreSQL value in text format into JSON or into a
// Go value.
//
// Text format is what a type's output function prints; pgoutput sends it, and
// so does the simple query protocol. (A cast to text is not always the same:
// inet, boolean and character have casts of their own.) The session that prints
// it must have TimeZone UTC, DateStyle ISO, IntervalStyle postgres and
// bytea_output hex. Nothing here depends on a connection or on a catalog.
//
// # JSON
//
// [Type.AppendJSON] prints JSON that equals, as jsonb, what to_jsonb prints for
// the same value, for every built-in scalar type and every array of one.
// Numbers keep their digits: none passes through a float64. Only smallint,
// integer, bigint, numeric, real and double precision are JSON numbers; NaN and
// the infinities are strings, and so are oid, xid and money. json and jsonb are
// trusted and copied as they are, white space and doubled keys included.
//
// Types that are not built in (enums, domains, composites, extensions) have
// OIDs that only a catalog explains: [Of] reads them as text, a JSON string. The
// caller who knows more describes them with [Text], [ArrayOf], [Domain],
// [Composite] and [Hstore], and gets what to_jsonb prints for these, too.
// A description of a composite may be out of date; then its values are JSON
// strings where the number of fields tells, and valid JSON always.
//
// # Go values
//
// [Type.Scan] stores a value in a variable and never in memory that the
// variable or the text already used, so earlier values may be shared between
// goroutines. The two exceptions are a [database/sql.Scanner], which decides for itself,
// and UnmarshalText and UnmarshalJSON, which copy what they keep by contract.
package pgvalue
