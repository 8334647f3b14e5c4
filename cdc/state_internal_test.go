package cdc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateSurvivesTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "er")
	f, err := openState(dir, "shop")
	if err != nil || f.existed {
		t.Fatalf("openState() = existed %t, %v; want a new one", f.existed, err)
	}
	want := state{SystemID: 1<<63 + 7, Timeline: 3, Confirmed: 0x16B374D848}
	if err := f.update(func(s *state) { *s = want }); err != nil {
		t.Fatal(err)
	}
	again, err := openState(dir, "shop")
	if err != nil || !again.existed || again.get() != want {
		t.Errorf("openState() = %+v, existed %t, %v; want %+v", again.get(), again.existed, err, want)
	}
	other, err := openState(dir, "other")
	if err != nil || other.existed {
		t.Errorf("state of another slot: existed %t, %v; want a new one", other.existed, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 1 {
		t.Errorf("files %q, want one", left)
	}
}

func TestStateThatCannotBeReadNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "shop.state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir, "shop"); err == nil || !strings.Contains(err.Error(), "shop.state.json") {
		t.Errorf("openState() = %v, want an error with the file's name", err)
	}
}

func TestStateStaysWhenItCannotBeStored(t *testing.T) {
	dir := t.TempDir()
	f, err := openState(filepath.Join(dir, "file", "below"), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.update(func(s *state) { s.Confirmed = 1 }); err == nil || f.get().Confirmed != 0 {
		t.Errorf("update() = %v with state %+v; want an error and the old state", err, f.get())
	}
}
