package cdc

import (
	"strings"
	"testing"
)

func TestForkOf(t *testing.T) {
	history := []byte("1\t0/3002CA8\tno recovery target specified\n2\t16/B374D848\tbefore 2000-01-01\n\n# a comment\n")
	for name, tc := range map[string]struct {
		timeline uint32
		want     LSN
		found    bool
	}{
		"the first":       {1, 0x3002CA8, true},
		"a later one":     {2, 0x16B374D848, true},
		"no ancestor":     {3, 0, false},
		"of another line": {0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, found := forkOf(history, tc.timeline); got != tc.want || found != tc.found {
				t.Errorf("forkOf(%d) = %s, %t; want %s, %t", tc.timeline, got, found, tc.want, tc.found)
			}
		})
	}
}

// What is told to the server is in the file before, and the file is not
// written more than once a second.
func TestReachStoresAtMostOnceASecond(t *testing.T) {
	f, err := openState(t.TempDir(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		confirmed LSN
		now       bool
		want      LSN
	}{{10, false, 10}, {20, false, 10}, {5, true, 10}, {30, true, 30}, {40, false, 30}} {
		if got, err := f.reach(step.confirmed, step.now); got != step.want || err != nil {
			t.Errorf("reach(%s, %t) = %s, %v; want %s", step.confirmed, step.now, got, err, step.want)
		}
		if err := f.reload("shop"); err != nil || f.get().Confirmed != step.want {
			t.Errorf("after reach(%s) the file has %s, %v; want %s", step.confirmed, f.get().Confirmed, err, step.want)
		}
	}
}

func TestSlotPoliciesAreChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		opts Options
		want string
	}{
		"unknown lost slot":     {Options{LostSlot: "cry"}, `lost slot "cry": want fail or resnapshot`},
		"resnapshot of nothing": {Options{LostSlot: LostSlotResnapshot, Snapshot: SnapshotNever}, `needs snapshot "initial"`},
		"unknown policy":        {Options{RetainedWALPolicy: "cry"}, "want warn, pause-snapshot or stop"},
		"no limit":              {Options{RetainedWALPolicy: RetainedWALStop}, "needs a limit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newConfig("postgres://app@localhost/shop", &tc.opts); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("newConfig(%+v) = %v, want %q", tc.opts, err, tc.want)
			}
		})
	}
}
