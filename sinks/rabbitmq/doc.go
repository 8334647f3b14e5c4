// Package rabbitmq keeps commands in RabbitMQ, and publishes events to it. It
// works with RabbitMQ 3.10 and later (its tests run on 3.10, 4.0 and 4.3), over AMQP
// 0-9-1, without the management plugin.
//
// A [Connector] connects, and connects again. [NewCommandBroker] makes a
// [sinks.CommandBroker] of it; package sinks says what is promised of commands,
// and docs/commands.md compares the brokers.
//
// # Queues
//
// Queue fleet is made of quorum queues, which store a message on a majority of
// their servers before they confirm it:
//
//   - cmd.fleet has the commands. A message's type is the command's name;
//     headers are CloudEvents ("cloudEvents:id", …) and Rowcall-Expires,
//     Rowcall-Not-Before and Rowcall-Attempts. Only the type has to be there: any
//     client can send a command, through the default exchange.
//   - dlq.fleet has the dead letters, with the headers Rowcall-Dead-Reason,
//     -Error, -Attempts, -Worker, -Time, -Origin. cmd.fleet dead-letters there
//     what the server gives up after 1,000 deliveries without an end.
//   - cmd.fleet.wait.16, .128, … .268435456 hold what is delivered later, each
//     for so many milliseconds, and dead-letter at least once back into
//     cmd.fleet.
//   - rowcall.commands has one message for all queues: which there are, and who
//     owns them. AMQP can tell neither. Delete it and both are forgotten, until
//     programs open their queues again.
//
// An exclusive queue whose name ends in .lock is a lock while it is there, and
// rowcall.reply.… is where a caller of [sinks.Commands.Call] waits.
// [CommandOptions.Prefix] begins all these names. A user needs the permissions
// configure, write and read on them, and on the default exchange.
//
// A policy must not set delivery-limit on dlq.… and rowcall.commands: to look at
// their messages counts as a delivery. They are stored anew after 8 looks, which a
// limit below 20 may not leave time for.
//
// A queue is created at its first use, which takes a second. One that is there
// may have other limits; one of another kind is a [sinks.QueueError].
//
// # What is promised
//
//   - A command for which Send returned nil is confirmed by its queue. What no
//     queue takes comes back (mandatory) and is an error, not lost.
//   - Retries, delays and dead letters are stored, and confirmed, before the
//     command is taken off its queue: a crash in between repeats it.
//   - Attempts are counted in the message, so that the server's own limit
//     (20 deliveries from RabbitMQ 4.0 on) does not end a command early. What the
//     server itself delivers again, since a worker died or lost its connection,
//     counts too.
//   - What a worker has taken and not begun when it is to stop is stored anew,
//     without counting as an attempt. Only what comes to an idle worker while the
//     server ends its consumer counts, below RabbitMQ 4.3.
//   - A delay is not shorter than asked for, by the clocks of the programs, and
//     longer by 16 ms and a few steps. While no worker runs, a command that is
//     due waits for one.
//   - A worker's death is noticed with its connection; a machine's that says no
//     more, after two to three heartbeats.
//   - A queue has one owner, for good.
//
// # What is not
//
//   - RabbitMQ remembers no ids: a command that is sent again, because its
//     confirmation was lost, is stored again. Serve with a [sinks.Inbox] for an
//     effect once.
//   - AMQP does not tell what is with a worker: [sinks.QueueStatus].Running
//     counts this process's own, and Oldest is not set.
//     rabbitmqctl list_queues name messages_unacknowledged knows.
//   - To look at dead letters is to take them out and put them back, under a lock
//     and in order. While somebody looks, the server counts none. Each letter is
//     held in memory.
//   - RabbitMQ 3.10 may lose messages over a restart if channels have ended with more
//     than 32 messages in work each: docs/commands.md. Serve with less there.
//   - Until 3.11 a command that takes more than 30 minutes, however alive its
//     worker is, makes the server close the channel, unless its consumer_timeout is
//     raised. All commands in work in that Serve are then delivered again, not
//     the slow one alone, and their handlers' contexts end with
//     [sinks.ErrLeaseLost]. From 3.12 on queues are created with 24 hours.
//   - A full queue ([CommandOptions.MaxMessages]) refuses what retries and
//     delays bring back, too; the server tries these again every 3 minutes.
//   - A quorum queue that is less than about a second old when its only server
//     crashes may be unusable afterwards: delete it. No command is confirmed
//     before that second is over.
//
// # Events
//
// [NewPublisher] makes a [listeners.Durable] that publishes events to a durable
// topic exchange, "rowcall", with their address as routing key: bind a queue with
// "cdc.shop.public.seats.#". Bodies and attributes are those of the other
// brokers, as CloudEvents by their AMQP binding.
//
//   - Stored never runs ahead of the server's confirmations. A confirmation says
//     that every queue that the event was routed to has it.
//   - Events are published in order, on one channel at a time, and delivered at
//     least once. After a fault those without a confirmation come again, from the
//     first of them on; the attribute id recognises them, and sequence says which
//     is the later one.
//   - The server drops what no queue is bound for, unless the exchange has an
//     alternate one (a policy), or [PublisherOptions.Mandatory] is set: then the
//     publisher waits for a queue.
//   - There is no history: a queue gets what is published while it is bound. For
//     replay use a firehose, on JetStream or Kafka.
//   - An event that is larger than the server takes is a
//     [MessageTooLargeError], which ends the subscription behind all before it.
package rabbitmq
