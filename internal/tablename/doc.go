// Package tablename reads the names of tables as users write them: table,
// schema.table or schema.*, each part as it is or in double quotes, with "" for
// a quote.
//
// Unlike in SQL, unquoted names keep their case, as a publication lists them. A
// table without a schema is one of schema public.
package tablename
