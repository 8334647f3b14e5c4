// Command bench measures rowcall beside what is at least to be done, in the same
// run, on a throw-away PostgreSQL. It is what "make bench" runs and where the
// figures of docs/benchmarks.md come from:
//
//	go run ./internal/bench -only drain,snapshot -rows 1000000
//
// drain reads a backlog beside pg_recvlogical, each program through a slot of
// its own, and with -kafka, or ROWCALL_KAFKA_LIBS, also to Kafka brokers, each in
// a process beside that is warm (-to says where it drains to), and with -debezium
// beside Debezium's engine; snapshot reads the same table beside COPY; large reads
// one transaction of millions of rows, for its memory; latency measures from a
// commit to a listener, beside a loop that only receives. Only ratios within one
// run mean anything.
package main
