package interop_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/internal/interop/plain"
)

func wantPlain(t *testing.T, got []plain.Message) {
	t.Helper()
	want := frames()
	if len(got) != len(want) {
		t.Fatalf("received %d messages, want %d", len(got), len(want))
	}
	for i := range want {
		f, m := &want[i], &got[i]
		// Headers are percent-encoded, as CloudEvents has them in HTTP.
		header := func(name string) string {
			text, err := url.PathUnescape(m.Header[name])
			if err != nil {
				t.Errorf("message %d: header %s = %q: %v", i, name, m.Header[name], err)
			}
			return text
		}
		for name, value := range map[string]string{
			"ce-specversion": "1.0", "ce-id": f.ID, "ce-source": f.Source, "ce-type": f.Type, "ce-subject": f.Subject,
			"ce-time": f.Time, "ce-sequence": f.Sequence, "ce-txid": f.TxID,
		} {
			if header(name) != value {
				t.Errorf("message %d: header %s = %q, want %q", i, name, header(name), value)
			}
		}
		if !bytes.Equal(m.Body, f.Body) {
			t.Errorf("message %d: body %s, want %s", i, m.Body, f.Body)
		}
		if !strings.HasPrefix(m.Subject, "cdc.shop.public.seats.") {
			t.Errorf("message %d: subject %s, want one of the table's", i, m.Subject)
		}
	}
}

func TestPlainSubscriberReplays(t *testing.T) {
	s, f := onJetStream(t)
	store(t, f)
	got, err := plain.Replay(within(t), s.URL(), "CDC_SHOP", "cdc.shop.public.seats.>", len(frames()))
	if err != nil {
		t.Fatal(err)
	}
	wantPlain(t, got)
}

func TestPlainSubscriberListens(t *testing.T) {
	s, f := onJetStream(t)
	got, err := plain.Listen(within(t), s.URL(), "cdc.shop.public.seats.>", len(frames()), func() { store(t, f) })
	if err != nil {
		t.Fatal(err)
	}
	wantPlain(t, got)
}

func TestPlainSubscriberImportsNothingOfOurs(t *testing.T) {
	files, err := filepath.Glob("plain/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of package plain (%v)", err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if strings.Contains(i.Path.Value, "rowcall") {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}
