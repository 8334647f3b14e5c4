// Command regions measures the regions of package grid beside other in-memory
// stores of this process, in the same run: go-memdb as it comes, with an indexer
// that needs no reflection; cilium/statedb; and a map behind a mutex. It is what
// "make bench" runs and where the figures of docs/benchmarks.md come from:
//
//	cd internal/bench/regions && go run . -only put,get
//
// It is a module of its own, so that nobody who uses rowcall gets its peers.
//
// Each line of a table is measured in rounds that take turns, and shows the
// median of each program's rounds. Only ratios within one run mean anything.
package main
