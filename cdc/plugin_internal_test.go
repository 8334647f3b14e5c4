package cdc

import (
	"strings"
	"testing"
)

func TestStreamOptions(t *testing.T) {
	const common = `publication_names '"shop"', messages 'true'`
	for name, tc := range map[string]struct {
		version   int
		streaming bool
		twoPhase  bool
		want      string
	}{
		"plain":                {version: 14, want: `proto_version '1', ` + common},
		"streaming":            {version: 15, streaming: true, want: `proto_version '2', ` + common + `, streaming 'on'`},
		"streaming in version": {version: 16, streaming: true, want: `proto_version '4', ` + common + `, streaming 'parallel'`},
		"two-phase":            {version: 18, twoPhase: true, want: `proto_version '3', ` + common + `, two_phase 'on'`},
		"both":                 {version: 15, streaming: true, twoPhase: true, want: `proto_version '3', ` + common + `, streaming 'on', two_phase 'on'`},
		"both in version":      {version: 17, streaming: true, twoPhase: true, want: `proto_version '4', ` + common + `, streaming 'parallel', two_phase 'on'`},
	} {
		t.Run(name, func(t *testing.T) {
			c := config{Options: Options{Publication: "shop"}}
			if got := c.streamOptions(tc.version, tc.streaming, tc.twoPhase); got != tc.want {
				t.Errorf("streamOptions(%d, %t, %t) = %s, want %s", tc.version, tc.streaming, tc.twoPhase, got, tc.want)
			}
		})
	}
}

func TestNamesOfSnapshotsAreRefused(t *testing.T) {
	if _, err := newConfig("postgres://host/shop", &Options{Slot: "shop_snapshot"}); err == nil || !strings.Contains(err.Error(), "_snapshot") {
		t.Errorf("newConfig() = %v, want an error that names the suffix", err)
	}
}
