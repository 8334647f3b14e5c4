// Package plain reads a firehose as a stranger does: with nats.go, and nothing
// of rowcall's.
package plain
