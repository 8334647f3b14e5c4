package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

func TestReport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "report.json")
	if err := os.WriteFile(name, []byte("an older and much, much longer report"), 0o600); err != nil {
		t.Fatal(err)
	}
	stored := listeners.Position{Epoch: 1, Commit: 2, Index: 3}
	r := newReport(cdc.Stats{Events: 3000, Transactions: 30}, stored, 2*time.Second)
	if r.CPUSeconds <= 0 || r.MaxRSSBytes < 1<<20 || r.MaxRSSBytes > 1<<36 {
		t.Errorf("CPU %v s, memory %d bytes: not believable", r.CPUSeconds, r.MaxRSSBytes)
	}
	r.CPUSeconds, r.MaxRSSBytes = 1.5, 1<<20
	if err := writeReport(name, r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	want := map[string]any{
		"events": 3000.0, "transactions": 30.0, "seconds": 2.0, "events_per_second": 1500.0, "cpu_seconds": 1.5,
		"max_rss_bytes": 1048576.0, "position": "0000000000000001-0000000000000002-00000003",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("in the directory there are %v, %v; want the report only", files, err)
	}
}

func TestCheckReport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := checkReport(filepath.Join(dir, "new.json")); err != nil {
		t.Errorf("checkReport() of a new file = %v", err)
	}
	for _, name := range []string{dir, filepath.Join(dir, "none", "r.json")} {
		if err := checkReport(name); err == nil {
			t.Errorf("checkReport(%q) = nil, want an error", name)
		}
	}
}
