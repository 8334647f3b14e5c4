package cdc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetentionWarnsAtMostOnceAMinute(t *testing.T) {
	for name, tc := range map[string]struct {
		slot *slotInfo
		err  error
		want int // warnings in just over three minutes
	}{
		"over the limit": {slot: &slotInfo{retained: 101, lag: 101}, want: 4},
		"at the limit":   {slot: &slotInfo{retained: 100, lag: 100}},
		"no slot":        {},
		"no answer":      {err: errors.New("connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				c := &config{Options: Options{Slot: "s", MaxRetainedWAL: 100, Logger: slog.New(slog.NewTextHandler(&log, nil))}}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+time.Second)
				defer cancel()
				looked := 0
				c.warnOfRetention(ctx, func(context.Context) (*slotInfo, error) {
					looked++
					return tc.slot, tc.err
				})
				if got := strings.Count(log.String(), "level=WARN"); got != tc.want {
					t.Errorf("%d warnings, want %d:\n%s", got, tc.want, &log)
				}
				if looked != 19 {
					t.Errorf("looked the slot up %d times in 181 s, want 19", looked)
				}
			})
		})
	}
}

func TestRetentionRemedyNamesTheCause(t *testing.T) {
	for name, tc := range map[string]struct {
		slot slotInfo
		want string
	}{
		"slow reader":      {slotInfo{retained: 100, lag: 90}, "a subscription is slow"},
		"open transaction": {slotInfo{retained: 100, lag: 1}, "an open transaction"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := retentionRemedy(&tc.slot); !strings.HasPrefix(got, tc.want) {
				t.Errorf("retentionRemedy(%+v) = %q, want %q…", tc.slot, got, tc.want)
			}
		})
	}
}
