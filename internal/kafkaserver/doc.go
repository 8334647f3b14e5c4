// Package kafkaserver runs a throw-away Kafka broker, in KRaft mode, on
// 127.0.0.1, for tests and benchmarks. It needs Java, and the jars of a broker,
// which "make test-kafka" fetches with Maven.
//
// [Start] returns when the broker answers. [Server.Kill] ends it without a word,
// and [Server.Resume] starts it again with what it has stored. The directory is
// the caller's.
package kafkaserver
