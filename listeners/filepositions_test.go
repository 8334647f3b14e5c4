package listeners_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestFilePositions(t *testing.T) {
	dir := t.TempDir()
	listenertest.Positions(t, func(*testing.T) listeners.PositionStore { return listeners.NewFilePositions(dir) })
}

func TestFilePositionsLeaveNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by Open")
	long := strings.Repeat("x", 500)
	names := []string{"s", "S", "mails/daily", "mails%2Fdaily", "..", ".", "", "ü", "a b", long, long + "y", strings.Repeat("/", 300), "x.lock", "x"}
	for i, name := range names {
		store := listeners.NewFilePositions(dir)
		k, found, err := store.Open(t.Context(), name)
		if err != nil || !found.IsZero() {
			t.Fatalf("Open(%.20q) = %s, %v; want nothing stored", name, found, err)
		}
		for _, commit := range []uint64{1000, uint64(i)} { // also backwards
			if err := k.Save(t.Context(), at(commit)); err != nil {
				t.Fatalf("Save of %.20q: %v", name, err)
			}
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	store := listeners.NewFilePositions(dir)
	for i, name := range names {
		k, found, err := store.Open(t.Context(), name)
		if err != nil || found != at(uint64(i)) {
			t.Errorf("Open(%.20q) = %s, %v; want %s", name, found, err, at(uint64(i)))
			continue
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2*len(names) {
		t.Errorf("%d files for %d names, want a position and a lock for each and no leftovers: %v", len(entries), len(names), entries)
	}
	outside, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(outside) != 1 {
		t.Errorf("beside the directory are %v (%v), want nothing", outside, err)
	}
}

func TestFilePositionsRefusesWhatIsNoPosition(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.position")
	if err := os.WriteFile(path, []byte("17\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := listeners.NewFilePositions(dir)
	for range 2 { // the name is free again after the first
		_, _, err := store.Open(t.Context(), "s")
		if err == nil || errors.Is(err, listeners.ErrNameTaken) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("Open = %v, want an error with the file and the remedy", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	k, found, err := store.Open(t.Context(), "s")
	if err != nil || !found.IsZero() {
		t.Fatalf("Open without the file = %s, %v; want nothing stored", found, err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

func TestFilePositionsFailsWithoutItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	k, _, err := listeners.NewFilePositions(dir).Open(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := k.Save(t.Context(), at(1)); err == nil {
		t.Error("Save into a directory that is gone returned no error")
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}
