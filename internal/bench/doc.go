// Command bench measures how fast rowcall drains a backlog, next to
// pg_recvlogical in the same run, on a throw-away PostgreSQL. It is what "make
// bench" runs and where the figures of docs/benchmarks.md come from:
//
//	go run ./internal/bench -rows 1000000
//
// Each program reads the same backlog through a slot of its own. Only ratios
// within one run mean anything; pg_recvlogical runs first, last and between the
// others, and its mean is 1.
package main
