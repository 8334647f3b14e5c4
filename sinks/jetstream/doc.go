// Package jetstream stores events in a NATS JetStream stream: the firehose.
//
// [New] makes a [sinks.Firehose] that writes. [NewSource] reads, as a [listeners.Source] in any process, and
// [Read] yields single messages. What a message looks like is described in
// package sinks; attributes are headers with the prefix "ce-", percent-encoded
// as the CloudEvents binding for NATS asks for.
//
// # What is promised
//
// Once: every event is in the stream once, in the order of the source, across
// retries, reconnects, and restarts of this process and of the server. The
// stream has one writer, and each message names the one that must come right
// before it: the first by the stream's last sequence
// (Nats-Expected-Last-Sequence), the following ones by the id of their
// predecessor (Nats-Expected-Last-Msg-Id). So the server refuses what is
// doubled, reordered, late, or behind a gap. After an error or a restart the
// last message of the stream says where to go on, in the middle of a
// transaction too. The duplicate window plays no part and is as short as the
// server allows.
//
// Complete: nothing is dropped. What cannot be stored for the time being is
// tried again for as long as the subscription lives; what can never be stored
// (a message larger than the server allows) ends the subscription with an error
// that names it. With [Options].TooLarge set to [sinks.TooLargePark], such a
// message's body goes into the object store [ParkedName], and the stream has a small
// message in its place; sources fetch the body, and other readers use [Unpark].
//
// Acknowledged: [sinks.Firehose.Stored] never runs ahead of the server's
// acknowledgements.
//
// Fenced: a firehose that finds the stream moved on by somebody else stops
// with a [sinks.FencedError]. In the first seconds after Open (as long as
// [Options].AckTimeout) it goes on behind what it finds instead, since that may
// be what its own predecessor had sent before it died. So when two are started
// on one stream, the older one stops.
//
// # Fast ingest
//
// Where the stream allows it (allow_batched, NATS 2.14; [sinks.Firehose.Open] sets it on
// a stream that it creates, and leaves an existing one alone), messages go in batches
// while there is much to do, see [FastIngest]. The server then answers every hundred of
// them, which saves about a tenth of the CPU time of server and firehose. Open
// logs whether batches are possible, and if not, why.
//
// What is promised stays the same. In a batch every message names the
// stream's last sequence, and the server ends the batch at the first one that it refuses or misses
// (gap mode "fail"), so that nothing is stored behind it: with replicas, too, where
// messages by themselves leave the moment that is described below. A batch begins when
// nothing is in flight, and nothing is sent behind one before its end
// is answered. After any fault, a reconnect or a change of leader the stream's tail says where to go on, with
// a new batch, or without one if the server refused it.
//
// To end a batch the firehose may publish an empty message to
// <address>._control.batch.end.all, such as cdc.shop._control.batch.end.all. The
// stream does not store it, but plain subscribers to cdc.shop.> hear it: it has no ce-id.
//
// # Whole transactions
//
// With [Options].Atomic a transaction of 2 to 1,000 messages is one of the server's
// atomic batches (NATS 2.12): it becomes visible whole or not at all. Its first message
// names the stream's last sequence. Nothing else is in flight meanwhile, so each such
// transaction costs a round trip, and fast ingest is not used. Larger ones are stored as without
// it; NATS 2.12 and 2.13 are first offered the whole of one that is larger than the window.
// The stored messages carry the server's headers Nats-Batch-….
//
// # Versions of the server
//
// NATS 2.10 is the oldest that works. Groups need 2.11, Atomic needs 2.12, and an error
// says so. The server's schedules of delayed commands (2.12) and its fast ingest (2.14) are used
// where it has them, and done without elsewhere.
//
// # What is refused
//
// A request that the server refuses for a reason that no waiting mends, by the code of its
// answer, is an error with the remedy: a [sinks.PlaceError], or a [sinks.QueueError] of commands.
// So is what this user may not publish. A limit of consumers (max_consumers) that is full is waited
// for by readers for 40 seconds, since the server keeps what a dead reader has left behind
// for nearly as long. Anything else is tried again.
//
// # What is not promised
//
// An acknowledgement says that the server has the message, not that its disk
// does: the server's sync_interval is two minutes by default. Where that
// matters, use Options.Replicas or set sync_interval to always. If an
// acknowledged message is gone afterwards, the firehose says so and stops.
//
// On a stream with replicas, every message outside a batch of fast ingest names a
// sequence and none an id (the server cannot compare ids there). If a stranger publishes to the
// stream's subjects, events behind the stranger's message are stored for a
// moment without the ones whose place it took; the firehose deletes them before
// it stops. Readers may have seen them, and see them again after the restart.
// Only a crash within that moment leaves the gap. Keep strangers out with
// permissions. Start the firehose anew after changing the number of replicas.
//
// A stream whose retention has removed every message has lost its writer's
// place too: after a restart the firehose then stores again whatever its source
// sends again.
//
// A firehose holds one database or one region. Regions count their positions
// each for itself, so a stream for several of them would have no order; a stream
// of its own that has theirs as its sources can collect them for a reader that
// needs none.
//
// # Reading
//
// A [sinks.Source] hands its listeners the batches that listeners of the database or
// region itself hear: transactions whole, in order, none missing and none twice,
// whatever happens to connections and servers. So a region of package grid
// mirrors a table or a region of another process:
//
//	source, err := jetstream.NewSource(nc, jetstream.RegionStreamName("shop", "seats"), nil)
//	seats, err := grid.Mirror[string, Seat](g, "seats", source, nil)
//	err = source.Run(ctx)
//
// A mirror needs a stream that holds a snapshot, or everything since the source
// began. The wire has no types: see [sinks.Decoder] for what fits where.
//
// When what was to be read is gone, by a purge, by limits or because the stream
// is another one, a reset and the present state follow, if the stream holds one;
// otherwise [sinks.Source.Run] returns a [sinks.HistoryError]. A mirror then keeps what it has.
//
// # Latest state
//
// [NewLatest] and [NewRegionLatest] make firehoses that keep no history but the
// latest state of each key, in a JetStream KV bucket that any client reads. A [sinks.Source] on
// [LatestStream] begins with the bucket's content and goes on with every change,
// so a mirror of it starts as fast as the state is small, however long the
// history. What they do not keep is the borders of transactions, and of several
// changes of a key, while a reader is behind, only the last.
//
// Not promised: a message that somebody deleted from the middle of a stream is
// not missed. Text of values is that of JSON, so it differs from what Postgres
// writes for times and booleans.
//
// # Groups
//
// Processes that share the work of one stream are members of a [sinks.Group] on
// [Groups]: each partition is read by one of them, by subject ("cdc.shop.*.*.*.003",
// and what concerns all). Leases and checkpoints are in a KV bucket, one entry
// for each partition.
//
//	groups, err := jetstream.NewGroups(nc, "shop", nil)
//	group, err := sinks.NewGroup(groups, "repricer", nil)
//	err = group.Run(ctx, func(sinks.GroupPartition) listeners.Listener { return repricer })
//
// # Positions
//
// [NewPositions] makes a store for durable subscriptions of any source, in a KV
// bucket: a listener goes on where it was, on whatever machine it runs.
//
// # Commands
//
// [CommandBroker] keeps the queues of [sinks.Commands]. Queue "fleet" is the
// work-queue stream CMD_FLEET on cmd.fleet.>, with one durable consumer "fleet"
// whose metadata name the owner, and the stream DLQ_FLEET on dlq.fleet for dead
// letters. A command is a message on cmd.<queue>.<name>, its ID ce-id and
// Nats-Msg-Id; a plain message there is one, too.
//
// A delayed command waits as a schedule of the server (NATS 2.12) on
// cmdat.<queue>.<hash>, and is delivered up to about a second late. The server allows
// schedules only where a full stream drops the oldest message, so a queue with
// MaxMessages or MaxBytes, which refuses instead, and one on an older server
// let their workers give it back until its time has come; that takes a delivery.
//
// The server delivers a command a few times more often than MaxAttempts. If
// workers die so early that none buries it even then, the server gives it up and says so in
// an advisory, which DLQ_FLEET keeps, too; the workers make dead letters of
// these.
//
// What is said above of acknowledgements and disks holds for commands.
package jetstream
