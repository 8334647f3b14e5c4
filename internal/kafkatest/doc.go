// Package kafkatest reads the topics of a Kafka cluster, or of a fake of one, in
// tests.
//
// It promises that what was committed when a call began is returned, whatever
// the time that takes, and nothing that was stored later.
package kafkatest
