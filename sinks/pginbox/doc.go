// Package pginbox remembers in a Postgres table which commands were carried
// out, in the transaction of their handler: each has its effect exactly once.
//
//	inbox, err := pginbox.Open(ctx, pool, nil)
//	...
//	err = commands.Serve(ctx, "fleet", func(ctx context.Context, r *sinks.Received) error {
//		_, err := pginbox.Tx(ctx).Exec(ctx, "INSERT INTO carriages ...")
//		return err
//	}, &sinks.ServePolicy{Inbox: inbox})
//
// # What is promised
//
// What a handler does through [Tx] is committed together with the memory of the
// command, or not at all. A command that comes again, because a confirmation was
// lost, a worker died, or somebody sent it twice, finds its id and does
// nothing; its reply is the first one. Two workers with the same command at the
// same time: the second waits until the first has committed or given up.
//
// # What is not promised
//
// An effect elsewhere (a mail, a call of another service) is not part of the
// transaction. A handler occupies a connection of the pool while it runs, so the
// pool needs as many as Concurrency says. Ids are remembered until [Inbox.Forget]
// removes them.
package pginbox
