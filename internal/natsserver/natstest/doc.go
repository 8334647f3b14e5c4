// Package natstest gives tests a real NATS server with JetStream: embedded in the
// test process, or a process of the binary that [BinVariable] names.
package natstest
