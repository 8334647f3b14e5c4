// Package pgoutput reads the messages of the pgoutput plugin, protocol versions
// 1 to 4 (Postgres manual, "Logical Replication Message Formats").
//
// Its functions are pure, allocate nothing for rows, never panic and never
// read outside the message: every length is checked, and trailing bytes are an
// error.
package pgoutput
