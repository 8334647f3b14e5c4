package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

// A report says what a run has done. Its field names are part of the command
// line's contract.
type report struct {
	Events          uint64  `json:"events"`
	Transactions    uint64  `json:"transactions"`
	Seconds         float64 `json:"seconds"`
	EventsPerSecond float64 `json:"events_per_second"`
	CPUSeconds      float64 `json:"cpu_seconds"`
	MaxRSSBytes     int64   `json:"max_rss_bytes"`
	Position        string  `json:"position"` // up to which everything is stored; "" if nothing came

	LastEvent        string `json:"last_event,omitempty"` // when the last transaction with events committed, by the server's clock
	RetainedWALBytes *int64 `json:"retained_wal_bytes,omitempty"`
	LagBytes         *int64 `json:"lag_bytes,omitempty"`
}

func newReport(s cdc.Stats, stored listeners.Position, took time.Duration) report {
	cpu, maxRSS := resources()
	r := report{
		Events: s.Events, Transactions: s.Transactions,
		Seconds: millis(took), CPUSeconds: millis(cpu), MaxRSSBytes: maxRSS,
	}
	if took > 0 {
		r.EventsPerSecond = math.Round(float64(s.Events)/took.Seconds()*10) / 10
	}
	if !stored.IsZero() {
		r.Position = stored.String()
	}
	return r
}

// millis returns seconds, rounded to milliseconds.
func millis(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// writeReport replaces the file in one step, so that nobody reads half of it.
func writeReport(name string, r report) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the report: %w", err)
		}
	}()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, writeErr := f.Write(append(text, '\n'))
	if err := errors.Join(writeErr, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}

// checkReport finds out before the run whether the report can be written at its
// end.
func checkReport(name string) error {
	if name == "" {
		return nil
	}
	info, err := os.Stat(filepath.Dir(name))
	switch {
	case err != nil:
		return fmt.Errorf("--report %s: %w", name, err)
	case !info.IsDir():
		return fmt.Errorf("--report %s: %s is not a directory", name, filepath.Dir(name))
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("--report %s: is a directory", name)
	}
	return nil
}
