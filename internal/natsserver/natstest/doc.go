// Package natstest gives tests a real NATS server with JetStream, embedded in
// the test process.
package natstest
