// Package sinks defines how an event looks on the wire, once for every broker.
// A broker's package decides only where the parts go.
//
// An event becomes a CloudEvent (version 1.0) in binary mode: attributes in the
// broker's headers and a JSON body. [Encoder] makes both, [AppendCloudEvent]
// puts them into one JSON object (structured mode), and [Decode] reads a
// message back.
//
// # Address and partition
//
// The address is a dotted name. NATS uses it as the subject.
//
//	cdc.<database>.<schema>.<table>.<op>.<p>   a row of a Postgres table
//	grid.<grid>.<region>.<op>.<p>              an entry of a region
//	cdc.<database>._messages.<name>.message.<p>  a message of the application
//	cdc.<database>._control.reset.reset.all    a reset
//	cdc.<database>._control.live.live.all      a live marker
//	grid.<grid>.<region>.reset.all             a region's reset
//	grid.<grid>.<region>.live.all              a region's live marker
//
// Op is create, update, delete, truncate, read or message. P is the partition,
// three digits or more, or "all" for what concerns a whole table or database
// (truncate, reset, and a message without a key). The name of a message is its
// prefix, or what an outbox row is about, and its collection "_messages.<name>". A partition is the FNV-1a hash (64 bits) of
//
//	<collection> 0x00 <text of the key>
//
// modulo the number of partitions, with the texts of [listeners.Schema.Collection]
// and [listeners.Key.String]. It is the same for every broker. An update that
// changes the key goes to the partition of its new key, so its order relative
// to the old key's events holds in the stream as a whole but not within one
// partition. A table without a key is one partition.
//
// In an address, letters, digits and "_" of ASCII stay as they are; every
// other byte becomes "-" and two hexadecimal digits. Two names never become
// the same token: see [EscapeToken].
//
// # Attributes
//
//	specversion      1.0
//	id               <source>/<position>
//	source           postgres/<database> or grid/<grid>, the name escaped as in a URL path
//	type             rowcall.<op>.v1, rowcall.reset.v1 or rowcall.live.v1
//	subject          <collection>/<key>, or <collection> without a key
//	partitionkey     as subject
//	time             when the transaction committed: RFC 3339, UTC, microseconds
//	sequence         the position, see [listeners.Position]; it sorts as text
//	txid             the number of the transaction, decimal; absent in a snapshot
//	txend            true on the last event of a transaction or snapshot, otherwise absent
//	filling          true on a change behind which a snapshot goes on that was begun before it, otherwise absent
//	cause            why it happened (expire, evict, clear, snapshot, …); absent if somebody wrote
//	dataref          where the body is, if it was too large for the place, see [TooLargePark]; otherwise absent
//	datacontenttype  application/json
//
// The id is the same each time the same change is read, so a reader that
// remembers ids (or the highest sequence) recognises a repetition. In subject,
// the collection is escaped as [listeners.Key.String] escapes a key, and the
// first "/" ends it. A reset has no subject and no partitionkey.
//
// A snapshot that was interrupted may go on in another run of the source: changes of
// the tables that are complete, a reset of the others, and their rows. The
// changes have filling, by which a reader knows that the state is not complete yet. The
// Kafka firehose does not write it.
//
// A transaction whose last part holds no event (its source found out too late
// that nothing follows) has no event with txend: a new txid ends it too.
//
// # Body
//
//	{"op":"update","key":{"id":7},"oldkey":{"id":6},"before":null,"after":{"id":7,"seat":"12A"},"unchanged":["notes"]}
//
// Key is {} for a table without a key. Oldkey is there only on an update that
// changed the key. Before and after are null where there is no such record;
// before is null too where Postgres did not send it (its REPLICA IDENTITY is
// not FULL). Unchanged names the columns that are missing from after because
// Postgres did not send them; it is absent when there are none. A truncate has
// neither record; a message has only after. Members come in this order.
//
// The body of a reset is {"op":"reset"}: what readers know of the source may
// be incomplete, and a snapshot of op read follows. With "collections", an
// array of names such as "public.seats", it concerns only those. The snapshot
// ends with an event that has txend. Where it has none, as that of an empty
// region, a live marker ends it, whose body is {"op":"live"}.
//
// # Reading back
//
// A [Decoder] turns messages into events again, whose records decode their
// columns when they are asked for, an [Assembler] makes the transactions of
// them that an in-process listener hears, and a [State] adds those up to the
// rows that there are.
//
// A [Source] does all of that, over what a broker stores: a [listeners.Source] in
// any process, whose listeners hear the batches that those of the firehose's own
// source hear. A broker implements [Log]; jetstream.NewSource and kafka.NewSource
// make one.
//
// # Firehose
//
// A [Firehose] stores the batches of a source with a broker, and [Firehose.Read]
// reads them back. A broker implements [FirehoseBroker], which moves messages and says
// what became of them; encoding, partitions, the window of messages in flight, trying
// again, what is stored already, messages that are too large, and figures are the
// firehose's. Packages of brokers make it: jetstream.New, kafka.New. Its errors are
// the same for all: [UnreachableError], [PlaceError], [FencedError], [EpochError],
// [TooLargeError].
//
// # Groups
//
// A [Group] is a member of a consumer group: processes that share the work of one
// firehose. Its partitions (in Kafka: those of each table) are divided evenly
// among the members, and each has one member at a time, which handles its
// events in order. Who joins gets a share from the others; who leaves finishes the batch in
// hand first; what a member that dies had is another's when its lease is over.
//
//	a key's events       in order, whoever handles them; unless the key itself changes
//	a batch              the part of one transaction that lies in the partition
//	truncate, reset, live  in every partition, each in its order, for the partition alone
//	after a crash        again from the last checkpoint: at least once, nothing skipped
//	two at a time        never, unless a listener ignores the end of its context,
//	                     or its process stands still for longer than the lease
//	a stale member       its listener's context ends with a [GroupLostError], and the
//	                     broker refuses its checkpoints
//	history gone         a [GroupHistoryError], or a Reset, see [GroupOptions].ResetOnLoss
//
// A broker implements [GroupBroker]. Reading, checkpoints, drain and retries
// are written once.
//
// # Commands
//
// [Commands] is the other pattern: a [Command] asks one service to do one
// thing. It is sent to the queue of that service, which is the only one to serve
// it, and stays there until a worker has carried it out.
//
//	send        nil means stored; the same ID sent again is stored once, while the broker remembers
//	carry out   at least once; once in effect with an [Inbox]
//	order       none
//	fail        tried again, with growing pauses, then a dead letter with its reason; never dropped
//	worker dies another one gets the command when the lease is over
//	reply       [Commands.Call] waits for it; it is not stored, except by an [Inbox]
//
// A broker implements [CommandBroker]; what is above is written once.
// [CommandsFor] turns events into commands.
package sinks
