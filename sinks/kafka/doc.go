// Package kafka stores events in Kafka topics: the firehose for readers of
// Kafka.
//
// [New] makes a [sinks.Firehose] that writes; any Kafka client reads. What a record looks like is
// described in package sinks: attributes are headers with the prefix "ce_" and
// plain values, as the CloudEvents binding for Kafka has them, the value is the
// JSON body, and the key is the partitionkey attribute. Each table has a topic
// of its own, named by the address without operation and partition, such as
// "cdc.shop.public.seats", and the number of the partition is the one in the
// address. A truncate goes to every partition of its topic, and a reset to
// every partition of every topic that it concerns, since a reader of one
// partition would not hear of it otherwise.
//
// [NewSource] reads all topics of a database back, in any process, and [NewLatestSource]
// the topics with the latest state.
//
// # What is promised
//
// Order: the records of one partition are in the order of the source, and so
// those of one key, unless the key itself changes. There is no order between
// partitions.
//
// Once in effect: every event is in its partition once, across retries,
// reconnects, and restarts of this process and of brokers. Within a run the
// idempotent producer sees to that (acks=all). At a start the last record of
// each partition says what is stored, and what the source sends again up to
// there is left out. Kafka transactions see to it that what a killed process
// had sent is either there before that look, or never: their transactional id,
// which belongs to the database, fences the predecessor.
//
// Atomic: a transaction of the source is visible at once to readers with
// isolation.level=read_committed, in all topics and partitions. Several of them
// may share one Kafka transaction. One that takes longer to send than half of
// [Options].TransactionTimeout arrives in parts.
//
// Complete: nothing is dropped. What cannot be stored for the time being is
// tried again for as long as the firehose is open. What can never be stored
// ends the subscription with an error that names it, and nothing behind it is
// stored in its partition. Brokers that have lost what they know of this producer
// (unknown producer id, sequence out of order) end it, too: opened again, it goes
// on behind what is stored. With [Options].TooLarge set to [sinks.TooLargePark], the
// body of a record that is too large goes into the topic [ParkedTopic] in pieces, and
// its topic has a small record in its place; sources fetch the body, and other
// readers use [Unpark].
//
// Acknowledged: [sinks.Firehose.Stored] never runs ahead of the brokers'
// acknowledgements, and of the commit of the Kafka transaction.
//
// Fenced: of two firehoses with one transactional id, the older one stops with
// a [sinks.FencedError].
//
// Lasting: brokers that have given the producer up (a transaction took longer than
// [Options].TransactionTimeout since they or the process were away, or the transactional
// id has expired) are taken up with a new one, behind what the topics hold, as after
// a restart. That needs brokers of 3.0 and later, which tell it from a second writer, and what
// is not committed must not be more than four times [Options].MaxPendingBytes: otherwise,
// and where that cannot be told, the firehose ends with an error that
// names both causes. With [Options].NoTransactions it ends always: nothing would keep what the
// brokers have of the old producer from being stored behind the look at the topics.
//
// # Groups
//
// Processes that share the work of a database's topics are members of a
// [sinks.Group] on [Groups], which is a consumer group of Kafka.
//
// # What is not promised
//
// An acknowledgement says that all replicas in sync have the record in memory.
// Use a replication factor of three and min.insync.replicas=2 where a broker's
// loss must not matter.
//
// With [Options].NoTransactions, nothing fences a predecessor: what it had in
// flight when it was killed may be stored after its successor has looked, twice
// then. Readers see parts of a transaction.
//
// A partition whose retention has removed every record has lost its writer's
// place: after a restart the firehose stores again what its source sends again.
//
// A topic of [New] that is deleted between two runs of the firehose, and while no source runs,
// is not missed. It is made anew with the next event of its table. What it held is gone,
// but for what the source sends again; and since the new one begins with offset 0, as retention never
// leaves a topic, a source that begins later takes what there is for all: one that begins behind a position
// does not hear that something is missing, and a present state lacks the rows of that
// table that were not written since. If all topics are deleted, a source from a position
// is told so as long as there is none. After a topic was deleted, have the source read the rows
// again: rowcall backfill, or a new snapshot. [NewLatest] remembers its topics and does so
// by itself.
//
// # Latest state
//
// [NewLatest] keeps the latest state of each key in compacted topics, one for each
// table, such as "latest.shop.public.seats": for readers that want the table and
// not what has happened to it, such as caches, a KTable, or a connector that
// writes into another store. A record's key is the key's text, and a row that is
// gone is a tombstone, as is every row of a table that is truncated, and every row
// that was there before a new snapshot. A reader that keeps the last value of each key
// has the table, whether the topic was compacted meanwhile or not.
//
// [NewLatestSource] reads it, for a mirror of a table in another process: it tells the present state and then
// each change, transactions whole and in order. Resets and truncates, which tombstones alone do not
// tell of, are in the topic [LatestMarkers]; other readers have no need of it. A snapshot that is
// being stored is no present state yet: who joins then waits for its end. What was left for
// longer than tombstones are kept (delete.retention.ms, a day) begins with a reset.
//
// # Reading
//
// The source of [NewSource] hands its listeners the batches that listeners of the
// database itself hear, see [sinks.Source]: transactions whole, over all topics,
// in commit order, none missing and none twice, whatever happens to connections,
// brokers, leaders and writers. It reads what is committed, and tells a
// transaction when it is sure that nothing before it is still to come, which
// takes two questions to the brokers and no record in the partitions that
// nobody writes. Each process that reads hears everything: for sharing the work there
// are consumer groups, which promise the order of a key alone.
//
// A topic that is deleted while a source runs, or that retention took unread records from, is noticed:
// then a reset and the present state follow, if the topics hold it, and otherwise
// Run returns a [sinks.HistoryError].
//
// Without Kafka transactions ([Options].NoTransactions) there is no order over
// partitions that anybody could find again, since a lot whose writer is killed
// is completed after what comes later was read elsewhere. A source refuses such
// records with a [TopicError]. What holds then is the order in each partition, so that
// of each key, for readers of partitions.
package kafka
