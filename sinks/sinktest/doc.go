// Package sinktest holds what the tests of every broker's sink share.
//
// [History] makes random batches of every kind, and [Frames] says what a sink
// must have stored of them: once, in order, nothing left out. The package
// promises nothing beyond that and is for tests alone.
//
// [Commands] is the suite of a [sinks.CommandBroker]: what package sinks
// promises of commands, with faults injected into a real broker. The broker's
// own tests call it with a [CommandServer], which says how to connect to the
// broker and how to harm it:
//
//	func TestCommands(t *testing.T) {
//		sinktest.Commands(t, func(t testing.TB) sinktest.CommandServer { return startBroker(t) })
//	}
//
// [Firehoses] is the suite of a [sinks.FirehoseBroker], in the same manner, with a
// [FirehoseServer]. It kills processes, cuts connections, loses
// acknowledgements and restarts the broker 20 times each, or as often as the
// server or ROWCALL_FIREHOSE_FAULTS says. ROWCALL_TEST_SEED repeats a failed run.
// ROWCALL_MODEL_SEEDS is the like for the models of regions and their mirrors:
// see package internal/seedtest.
//
// [Groups] is the suite of a [sinks.GroupBroker], with members that join, leave,
// die, freeze and are slow at random. Its clients go through a [Wire].
//
// [Inbox] is one in memory, for tests of handlers too.
package sinktest
