package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/rowcall/rowcall/cdc"
)

// progressEvery is the time between two log lines of a snapshot's progress.
const progressEvery = 3 * time.Second

// A progress shows how far a snapshot is: a bar on a terminal, a log line every
// few seconds elsewhere. It is an [io.Writer] too: what goes to the terminal
// through it does not end up in the middle of the bar.
type progress struct {
	w   io.Writer
	log *slog.Logger // nil on a terminal

	mu   sync.Mutex
	bar  *progressbar.ProgressBar // nil unless one is shown
	last time.Time                // of a log line, or when the snapshot began
}

// newProgress returns one that logs to what logger returns, unless bar is true.
// The logger may write to the progress itself.
func newProgress(w io.Writer, bar bool, logger func(io.Writer) (*slog.Logger, error)) (*progress, *slog.Logger, error) {
	p := &progress{w: w}
	log, err := logger(p)
	if !bar {
		p.log = log
	}
	return p, log, err
}

// Write implements [io.Writer].
func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	return p.w.Write(text)
}

// show is for [cdc.Options].Progress.
func (p *progress) show(now cdc.Progress) {
	p.mu.Lock()
	if p.log != nil {
		p.mu.Unlock()
		p.logLine(now)
		return
	}
	defer p.mu.Unlock()
	if now.Done {
		p.clear()
		return
	}
	if p.bar == nil {
		p.bar = p.newBar(now)
	}
	if p.bar.GetMax64() <= now.Rows && now.EstimatedRows > 0 {
		// The estimate is the planner's: the bar must not end before the rows do.
		p.bar.ChangeMax64(now.Rows + 1)
	}
	p.bar.Describe(describe(now))
	_ = p.bar.Set64(now.Rows)
}

// describe has what the bar does not show by itself. The time that is left is
// the source's, by size on disk: the bar's would be by the estimated rows.
func describe(now cdc.Progress) string {
	text := "snapshot of " + now.Table
	if now.Tables > 1 {
		text += fmt.Sprintf(" (%d/%d)", min(now.TablesDone+1, now.Tables), now.Tables)
	}
	if now.ETA > 0 {
		text += ", " + now.ETA.Round(time.Second).String() + " left"
	}
	return text
}

func (p *progress) newBar(now cdc.Progress) *progressbar.ProgressBar {
	rows := now.EstimatedRows
	if rows <= 0 {
		rows = -1 // a spinner that counts
	}
	return progressbar.NewOptions64(rows,
		progressbar.OptionSetWriter(p.w),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetItsString("rows"),
		progressbar.OptionThrottle(0),                 // the source does not call often
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
		progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionUseANSICodes(true),
	)
}

// logLine runs without the lock: the logger may write through p.
func (p *progress) logLine(now cdc.Progress) {
	at := time.Now()
	if p.last.IsZero() {
		p.last = at
	}
	if now.Done || at.Sub(p.last) < progressEvery {
		return // the source logs the end itself
	}
	p.last = at
	p.log.Info("snapshot", "table", now.Table, "tables_done", now.TablesDone, "tables", now.Tables,
		"rows", now.Rows, "estimated_rows", now.EstimatedRows,
		"rows_per_second", math.Round(now.RowsPerSecond), "eta", now.ETA.Round(time.Second))
}

// end takes the bar away. Nothing is shown afterwards.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}
