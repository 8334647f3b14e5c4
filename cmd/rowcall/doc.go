// Command rowcall turns the rows that are committed in PostgreSQL into events:
// on a NATS JetStream stream, on other brokers, or as lines on standard output.
// Run "rowcall --help" for its commands. Its settings can stand in a file, see
// docs/configuration.md.
//
// What a command was asked for goes to standard output. Everything else (what
// was created, progress, logs, errors) goes to standard error. The exit code is
// 0 if all went well or the command was asked to stop, 1 if something failed,
// and 2 if the command line or the environment does not make sense.
package main
