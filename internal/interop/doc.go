// Package interop holds no code, only tests: that others read what rowcall
// writes, without it. A subscriber of plain nats.go, the nats command line, and
// the CloudEvents SDK's own readers of NATS JetStream and Kafka see the events
// that a firehose has stored, with the same attributes and data.
//
// It is a module of its own, so that nobody who uses rowcall gets their
// dependencies.
package interop
