package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

func truncates(commit uint64) *listeners.Batch {
	schema := listeners.NewSchema("shop", "public", "seats", nil)
	at := listeners.Position{Epoch: 1, Commit: commit, Index: 1}
	return &listeners.Batch{
		Source: "shop", Position: at, First: true, Last: true,
		Events: []listeners.Event{{Op: listeners.Truncate, Position: at, Schema: schema}},
	}
}

func TestLineSinkStoresWhatIsFlushed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := newLineSink(&out)
		for commit := range uint64(3) {
			if err := s.OnBatch(t.Context(), truncates(commit+1)); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.Stored(); out.Len() > 0 || !got.IsZero() {
			t.Errorf("before the flush: %d bytes written, Stored() = %s; want nothing of both", out.Len(), got)
		}
		began := time.Now()
		<-s.Stalled() // by itself, when idle
		if waited := time.Since(began); waited != idleFlush {
			t.Errorf("the flush was asked for after %s, want %s", waited, idleFlush)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, lines := s.Stored().Commit, strings.Count(out.String(), "\n"); got != 3 || lines != 3 {
			t.Errorf("after the flush: %d lines written, Stored().Commit = %d; want 3 and 3", lines, got)
		}
		if err := s.OnBatch(t.Context(), &listeners.Batch{Kind: listeners.Live, Position: listeners.Position{Epoch: 1, Commit: 4}}); err != nil {
			t.Fatal(err)
		}
		if got := s.Stored().Commit; got != 4 {
			t.Errorf("after a batch without lines: Stored().Commit = %d, want 4", got)
		}
	})
}

type brokenPipe struct{}

var errBroken = errors.New("broken pipe")

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

func TestLineSinkReportsABrokenPipe(t *testing.T) {
	t.Parallel()
	s := newLineSink(brokenPipe{})
	if err := s.OnBatch(t.Context(), truncates(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("Flush() = %v, want %v", err, errBroken)
	}
	if got := s.Stored(); !got.IsZero() {
		t.Errorf("Stored() = %s, want nothing", got)
	}
}
