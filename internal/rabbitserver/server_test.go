package rabbitserver_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
)

func TestMain(m *testing.M) { rabbittest.Main(m) }

func TestNodeComesBackAfterACrash(t *testing.T) {
	s := rabbittest.Server(t)
	if _, err := s.Ctl(t.Context(), "add_vhost", "kept"); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if conn, err := dial(t.Context(), s.URL()); err == nil {
		conn.Close()
		t.Error("the port of a killed node takes connections")
	}
	if err := s.Resume(t.Context()); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	got, err := s.Ctl(t.Context(), "list_vhosts")
	if err != nil || !strings.Contains(got, "kept") {
		t.Errorf("list_vhosts after a crash = %q, %v; want kept among them", got, err)
	}
}

func TestEvalReturnsTheResult(t *testing.T) {
	s := rabbittest.Server(t)
	got, err := s.Eval(t.Context(), `
		X = [1, 2],
		{lists:sum(X), "text"}.`)
	if err != nil || strings.ReplaceAll(strings.TrimSpace(got), " ", "") != `{3,"text"}` {
		t.Errorf("Eval = %q, %v; want {3,\"text\"}", got, err)
	}
	if got, err := s.Eval(t.Context(), "no_such:function()."); err == nil {
		t.Errorf("Eval of what does not exist = %q, want an error", got)
	}
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", u.Host)
}

func TestFindSaysWhatIsMissing(t *testing.T) {
	t.Setenv(rabbitserver.BinDirVariable, t.TempDir())
	_, err := rabbitserver.Find()
	if !errors.Is(err, rabbitserver.ErrNotFound) || !strings.Contains(err.Error(), os.Getenv(rabbitserver.BinDirVariable)) {
		t.Errorf("Find in an empty directory = %v, want ErrNotFound that names it", err)
	}
}
