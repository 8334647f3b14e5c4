package main

import (
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

// sourceFlags say which database to read, and what of it.
type sourceFlags struct {
	url         string
	tables      tableList
	slot        string
	publication string
	snapshot    *choice
	messages    prefixList
	outbox      outboxList
	workers     int
}

func addSourceFlags(cmd *cobra.Command) *sourceFlags {
	f := &sourceFlags{
		snapshot: newChoice(string(cdc.SnapshotInitial),
			string(cdc.SnapshotInitial), string(cdc.SnapshotNever), string(cdc.SnapshotOnly)),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.url, "database-url", "",
		"connection `URL`, such as postgres://user:password@host/database (required)")
	flags.Var(&f.tables, "tables",
		"schema.table or schema.*, separated by commas (default: those of the publication, or all)")
	flags.StringVar(&f.slot, "slot", "", "`name` of the replication slot (default: rowcall_ and the database's name)")
	flags.StringVar(&f.publication, "publication", "", "`name` of the publication (default: the slot's name)")
	flags.Var(f.snapshot, "snapshot",
		"the rows that are there already: initial reads them when the slot is new, only reads them and ends")
	flags.Var(&f.messages, "messages",
		"prefixes of logical messages to publish, separated by commas; orders.* is all that begin so (default: none)")
	flags.Var(&f.outbox, "outbox",
		"tables whose inserts are messages, such as public.outbox or public.outbox:id=event_id,type=kind (default: none)")
	flags.IntVar(&f.workers, "snapshot-workers", 0, "`number` of connections that read a snapshot (default: one for each CPU, at most 4)")
	return f
}

func (f *sourceFlags) options() *cdc.Options {
	return &cdc.Options{
		Tables: f.tables.tables, Slot: f.slot, Publication: f.publication,
		Snapshot: cdc.SnapshotMode(f.snapshot.value), SnapshotWorkers: f.workers,
		Messages: f.messages.prefixes, Outbox: f.outbox.outboxes,
	}
}
