package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/listeners"
)

// A journal is the stream that the other brokers of a run are fed from, each at
// its own pace and from its own position, so that one that is slow or away
// holds up neither the slot nor the others.
type journal struct {
	nc        *nats.Conn
	at        natsPlace
	stream    string
	positions listeners.PositionStore
	log       *slog.Logger
}

const journalUsage = "feed other brokers from the stream in NATS, so that none waits for another (default: if nats is among several)"

// checkJournal finds out which of the places are fed from the journal.
func (a *app) checkJournal(cmd *cobra.Command, f *runFlags) error {
	asked := cmd.Flag("journal").Changed
	others := slices.ContainsFunc(f.to.list, fedByJournal)
	i := f.to.journal()
	whole := i >= 0 && f.to.at(i).where.filter == nil && len(f.to.at(i).tables) == 0
	switch {
	case asked && !f.journal:
		return nil
	case asked && i < 0 && f.to.hasNATS():
		return usage(fmt.Errorf("%s: the latest state is no journal; it needs nats with its history among the places that events go to, too", a.spelling("journal")))
	case asked && i < 0:
		return usage(fmt.Errorf("%s needs nats among the places that events go to: its stream is the journal", a.spelling("journal")))
	case asked && others && !whole:
		return usage(fmt.Errorf("%s: the place nats has tables or a condition of its own, but a journal holds everything; give those to the other places", a.spelling("journal")))
	}
	f.journaling = others && whole
	return nil
}

// fedByJournal reports whether a place can be fed from the journal: a broker.
func fedByJournal(target string) bool { return targetKind(target) != target }

// newJournal returns the journal of what was opened, nil if there is none.
func (f *runFlags) newJournal(dests []*destination, log *slog.Logger) *journal {
	i := slices.IndexFunc(dests, func(d *destination) bool { return d.link != nil })
	if !f.journaling || i < 0 {
		return nil
	}
	dir := filepath.Join(cmp.Or(f.slot.stateDir, f.nats.dataDir), "journal")
	return &journal{nc: dests[i].link.nc, at: dests[i].at, stream: dests[i].stream, positions: listeners.NewFilePositions(dir), log: log}
}

// whole returns an error if the journal has lost its beginning.
func (j *journal) whole(ctx context.Context, name string) error {
	js, err := j.at.jetStream(j.nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, j.stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", j.stream, err)
	}
	if cut(stream.CachedInfo()) {
		return &gapError{stream: j.stream, name: name}
	}
	return nil
}

// cut reports whether a stream has lost its beginning.
func cut(info *natsjs.StreamInfo) bool { return info.State.FirstSeq > max(info.Config.FirstSeq, 1) }
