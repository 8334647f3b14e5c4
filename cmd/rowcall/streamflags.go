package main

import (
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

// streamFlags say how the slot is read.
type streamFlags struct {
	streaming   *choice
	spoolDir    string
	twoPhase    bool
	undecodable *choice
	catchUp     byteSize
}

func (f *streamFlags) add(cmd *cobra.Command) {
	f.streaming = newChoice(string(cdc.StreamingOn), string(cdc.StreamingOn), string(cdc.StreamingOff))
	f.undecodable = newChoice(string(cdc.UndecodableStop), string(cdc.UndecodableStop), string(cdc.UndecodablePark))
	flags := cmd.Flags()
	flags.Var(f.streaming, "streaming", "take large transactions while they are in progress, to publish them when they have committed")
	flags.StringVar(&f.spoolDir, "spool-dir", "", "`directory` for large transactions in progress (default: the system's for temporary files)")
	flags.BoolVar(&f.twoPhase, "two-phase", false, "take prepared transactions before COMMIT PREPARED; needs Postgres 15")
	f.catchUp = 64 << 20
	flags.Var(&f.catchUp, "catch-up-bytes", "read a larger backlog than this with SQL functions, which is faster; 0 to stream always")
	flags.Var(f.undecodable, "undecodable", "a message that cannot be read ends the run, or is parked in the state directory")
}

func (f *streamFlags) apply(opts *cdc.Options) {
	opts.Streaming, opts.Undecodable = cdc.StreamingMode(f.streaming.value), cdc.UndecodablePolicy(f.undecodable.value)
	if opts.CatchUpBytes = int64(f.catchUp); f.catchUp == 0 {
		opts.CatchUpBytes = -1
	}
	opts.SpoolDir, opts.TwoPhase = f.spoolDir, f.twoPhase
}
