package cdc

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// The driver that is made to wait for a write reads in the background, and goes
// on with that when its connection is taken over. What it took would be missing:
// a row, or the half of one.
func TestNothingIsLostToTheDriverThatStillReads(t *testing.T) {
	url := pgtest.Database(t)
	for name, replication := range map[string]bool{"ordinary": false, "replication": true} {
		t.Run(name, func(t *testing.T) {
			c, err := newConfig(url, nil)
			if err != nil {
				t.Fatal(err)
			}
			var slow atomic.Bool
			slow.Store(true)
			dial := c.conn.DialFunc
			c.conn.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				return &slowWriter{Conn: conn, slow: &slow}, err
			}
			connect := func() (*wire, error) {
				if replication {
					conn, _, err := c.connectIdentified(t.Context())
					if err != nil {
						return nil, err
					}
					slow.Store(false)
					return hijack(t.Context(), conn)
				}
				conn, err := c.connect(t.Context())
				if err == nil {
					err = conn.Ping(t.Context())
				}
				if err != nil {
					return nil, err
				}
				slow.Store(false)
				return hijack(t.Context(), conn.PgConn())
			}
			w, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			if err := w.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := w.query("SHOW server_version"); err != nil {
				t.Fatal(err)
			}
			var kinds []byte
			for !slices.Contains(kinds, 'Z') {
				kind, _, err := w.next()
				if err != nil {
					t.Fatalf("after %q: %v", kinds, err)
				}
				kinds = append(kinds, kind)
			}
			if string(kinds) != "TDCZ" {
				t.Errorf("these messages came: %q, want TDCZ", kinds)
			}
		})
	}
}

// A slowWriter is a connection to a server that is slow to take what is written.
type slowWriter struct {
	net.Conn
	slow *atomic.Bool
}

func (w *slowWriter) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if !w.slow.Load() {
		return n, err
	}
	timer := time.NewTimer(40 * time.Millisecond) // the driver waits for 15
	defer timer.Stop()
	<-timer.C
	return n, err
}
