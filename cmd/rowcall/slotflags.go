package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/cdc"
)

// slotFlags say how a run cares for its slot.
type slotFlags struct {
	stateDir       string
	lostSlot       *choice
	maxRetained    byteSize
	retainedPolicy *choice
	failover       bool
}

func addSlotFlags(cmd *cobra.Command) *slotFlags {
	f := &slotFlags{
		lostSlot: newChoice(string(cdc.LostSlotFail), string(cdc.LostSlotFail), string(cdc.LostSlotResnapshot)),
		retainedPolicy: newChoice(string(cdc.RetainedWALWarn),
			string(cdc.RetainedWALWarn), string(cdc.RetainedWALPauseSnapshot), string(cdc.RetainedWALStop)),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.stateDir, "state-dir", "",
		"`directory` for what a run remembers of its slot, to recognise it in the next (default: that of --data-dir)")
	flags.Var(f.lostSlot, "lost-slot",
		"when the slot is gone, invalid or not the one that was left: fail, or begin again with a snapshot")
	flags.Var(&f.maxRetained, "max-retained-wal", "the WAL that the slot may keep on the server, such as 10GB (default: any)")
	flags.Var(f.retainedPolicy, "retained-wal-policy",
		"beyond --max-retained-wal: warn, also make a snapshot later, or stop and drop the slot")
	flags.BoolVar(&f.failover, "failover", false, "have standbys keep the slot in step (Postgres 17 and later)")
	return f
}

// apply sets the options. The state is in the data directory unless it has one
// of its own.
func (f *slotFlags) apply(opts *cdc.Options, dataDir string) {
	opts.StateDir = cmp.Or(f.stateDir, dataDir)
	opts.LostSlot = cdc.LostSlotPolicy(f.lostSlot.value)
	opts.MaxRetainedWAL = int64(f.maxRetained)
	opts.RetainedWALPolicy = cdc.RetainedWALPolicy(f.retainedPolicy.value)
	opts.Failover = f.failover
}

// addSlot completes a report with what the server keeps for the slot, if it
// answers.
func (r *report) addSlot(ctx context.Context, source *cdc.Source) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if slot, err := source.SlotStatus(ctx); err == nil {
		r.RetainedWALBytes, r.LagBytes = &slot.RetainedBytes, &slot.LagBytes
	}
	if at := source.Stats().LastEvent; !at.IsZero() {
		r.LastEvent = at.UTC().Format(time.RFC3339Nano)
	}
}
