// Package natsserver embeds a NATS server with JetStream in this process.
//
// [Start] opens a store directory and listens on 127.0.0.1, nowhere else; there
// is no authentication. Clients of the same process connect without TCP through
// [nats.InProcessServer], since a [Server] is a nats.InProcessConnProvider:
//
//	nc, err := nats.Connect("", nats.InProcessServer(server))
//
// # What an ack means
//
// A stream with file storage acknowledges a message (PubAck) after it was
// written with write(2) to the stream's file: the server hands it to the
// operating system before it answers. So a crash of this process, kill -9
// included, loses nothing that was acknowledged. A crash of the operating system
// or a power loss may: the server calls fsync in the background, every two
// minutes (sync_interval), so up to two minutes of acknowledged messages may be
// gone. With [Options].SyncAlways it calls fsync before every acknowledgement.
//
// This holds for streams with one replica, which is all that a single server
// can have. It does not hold for streams that ask for less: memory storage, and
// persist mode "async", which acknowledges before it writes.
//
// What a consumer has acknowledged is written up to 100 ms later, so a crash may
// deliver messages again, and never skips any.
//
// # One process, one store
//
// A lock on a file in the directory keeps two processes from sharing a store.
// The kernel drops it when its holder dies. After [Server.Stop], or after a crash,
// a server on the same directory has the same streams and messages.
package natsserver
