package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/cdc"
)

func textLogger(w io.Writer) (*slog.Logger, error) {
	return slog.New(slog.NewTextHandler(w, nil)), nil
}

func TestProgressLogsEveryFewSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p, _, err := newProgress(&out, false, textLogger)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 { // ten seconds
			p.show(cdc.Progress{
				Table: "public.seats", Tables: 2, Rows: int64(i) * 1000, EstimatedRows: 60_000,
				RowsPerSecond: 5000.4, ETA: 9*time.Second + 400*time.Millisecond,
			})
			time.Sleep(200 * time.Millisecond)
		}
		p.show(cdc.Progress{Done: true})
		p.end()
		if got := strings.Count(out.String(), "msg=snapshot "); got != 3 {
			t.Errorf("%d lines in ten seconds, want 3:\n%s", got, out.String())
		}
		if want := "table=public.seats tables_done=0 tables=2 rows=15000 estimated_rows=60000 rows_per_second=5000 eta=9s"; !strings.Contains(out.String(), want) {
			t.Errorf("the log holds no %q:\n%s", want, out.String())
		}
	})
}

func TestProgressBarMakesRoomForOtherLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p, log, err := newProgress(&out, true, textLogger)
	if err != nil {
		t.Fatal(err)
	}
	p.show(cdc.Progress{Table: "public.seats", Tables: 3, TablesDone: 1, Rows: 300, EstimatedRows: 100, ETA: 70 * time.Second}) // the estimate was too low
	if got := out.String(); !strings.Contains(got, "snapshot of public.seats (2/3), 1m10s left") || !strings.Contains(got, "300/301") {
		t.Errorf("the bar is %q, want the table and 300/301", got)
	}
	out.Reset()
	log.Info("in between")
	if got := out.String(); !strings.HasPrefix(got, "\r") && !strings.HasPrefix(got, "\x1b[2K") {
		t.Errorf("a log line begins with %.20q, want the bar cleared before it", got)
	}
	p.show(cdc.Progress{Done: true})
	out.Reset()
	log.Info("after")
	if got := out.String(); !strings.HasPrefix(got, "time=") {
		t.Errorf("a log line after the snapshot begins with %.20q, want the line itself", got)
	}

	// Without an estimate it counts.
	out.Reset()
	p.show(cdc.Progress{Table: "public.seats", Rows: 300})
	if got := out.String(); !strings.Contains(got, "300") {
		t.Errorf("without an estimate the bar is %q, want the rows in it", got)
	}
	p.end()
}
