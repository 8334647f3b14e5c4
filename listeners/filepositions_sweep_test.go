package listeners_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

// A process that dies while it saves leaves a file that nobody would look at
// again.
func TestFilePositionsRemoveWhatACrashLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[positions]")
	store := listeners.NewFilePositions(dir)
	open := func(name string) listeners.Position {
		t.Helper()
		keeper, at, err := store.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := keeper.Save(t.Context(), listeners.Position{Epoch: 1, Commit: 7}); err != nil {
			t.Fatal(err)
		}
		if err := keeper.Close(); err != nil {
			t.Fatal(err)
		}
		return at
	}
	open("mail")
	for _, name := range []string{"mail.123.tmp", "mail.4.tmp", "mail.9.5.tmp", "mailer.6.tmp", "mail.tmp", "mail.old.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if at := open("mail"); at.Commit != 7 {
		t.Errorf("Open = %v, want what was saved", at)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{"mail.9.5.tmp", "mail.lock", "mail.old.tmp", "mail.position", "mail.tmp", "mailer.6.tmp"} // those of "mail.9", and of others
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
