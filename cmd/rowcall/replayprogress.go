package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"

	"github.com/rowcall/rowcall/sinks"
)

// A replayProgress shows how far a replay is: a bar on a terminal, a log line
// every few seconds elsewhere. It is an [io.Writer] too, as [progress] is.
type replayProgress struct {
	*progress
	app *app
	out *announcer
}

func newReplayProgress(a *app, f *logFlags) (*replayProgress, *slog.Logger, error) {
	show, logger, err := newProgress(a.stderr, isTerminal(a.stderr) && !isTerminal(a.stdout) && !f.json(), f.logger)
	p := &replayProgress{progress: show, app: a}
	p.out = &announcer{w: p, log: logger, json: f.json()}
	return p, logger, err
}

// replayEvery is the time between two looks at a replay.
const replayEvery = 250 * time.Millisecond

// watch shows the progress until ctx ends or the returned function is called,
// which waits for it.
func (p *replayProgress) watch(ctx context.Context, source *sinks.Source, dests []*destination) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(replayEvery)
		defer tick.Stop()
		for began := time.Now(); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			lag, err := source.Lag(ctx)
			if err != nil {
				continue // the source says what is wrong
			}
			p.showLag(ctx, handed(dests), int64(min(lag.Messages, math.MaxInt64)), time.Since(began))
		}
	})
	return func() {
		cancel()
		wg.Wait()
		p.progress.end()
	}
}

// handed returns how many events every place was given.
func handed(dests []*destination) int64 {
	least := int64(math.MaxInt64)
	for _, d := range dests {
		least = min(least, d.guard.events.Load())
	}
	return least
}

func (p *replayProgress) showLag(ctx context.Context, events, left int64, running time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log == nil {
		if p.bar == nil {
			p.bar = progressbar.NewOptions64(max(1, events+left),
				progressbar.OptionSetWriter(p.w), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetItsString("events"), progressbar.OptionThrottle(0), progressbar.OptionSetWidth(30),
				progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true), progressbar.OptionSetDescription("replay"))
		}
		p.bar.ChangeMax64(max(1, events+left))
		_ = p.bar.Set64(events)
		return
	}
	if now := time.Now(); now.Sub(p.last) >= progressEvery && running >= progressEvery {
		p.last = now
		log := p.log
		p.mu.Unlock() // the logger may write through p
		log.InfoContext(ctx, "replaying", "events", events, "left", left)
		p.mu.Lock()
	}
}

// end says what was done.
func (p *replayProgress) end(dests []*destination) {
	events := handed(dests)
	at := stored(dests, nil)
	up := ""
	if !at.IsZero() {
		up = ", up to " + at.String()
	}
	p.out.say(fmt.Sprintf("replayed %s events%s", humanize.Comma(events), up), "replayed", "events", events, "position", at.String())
}
