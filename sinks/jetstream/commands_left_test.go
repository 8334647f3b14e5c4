package jetstream_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A server that stops between the two halves of an acknowledgement: the consumer
// is done with the command, the stream still has it. It is no dead letter.
func TestCommandLeftBehindIsNoDeadLetter(t *testing.T) {
	for name, tc := range map[string]struct {
		other bool // another worker finds it than the one that was done with it
		inbox sinks.Inbox
		want  int64 // how often it is carried out
	}{
		"by the worker that was done": {want: 1},
		"by another":                  {other: true, want: 2},
		"by another with an inbox":    {other: true, inbox: new(sinktest.Inbox), want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := &natsserver.Options{Dir: t.TempDir(), Port: natstest.Port(t)}
			start := func() *natstest.Server {
				t.Helper()
				s, err := natstest.Start(t.Context(), opts)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(s.Stop)
				return s
			}
			s := start()
			nc := connect(t, s)
			c := newCommands(t, nc, nil)
			js, err := natsjs.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "left"}); err != nil {
				t.Fatal(err)
			}
			s.Stop()
			var messages string
			err = filepath.WalkDir(opts.Dir, func(path string, _ os.DirEntry, err error) error {
				if filepath.Base(path) == "msgs" && filepath.Base(filepath.Dir(path)) == "CMD_FLEET" {
					messages = path
				}
				return err
			})
			if err != nil || messages == "" {
				t.Fatalf("the directory of the stream's messages is %q, %v", messages, err)
			}
			kept := filepath.Join(t.TempDir(), "msgs")
			if err := os.CopyFS(kept, os.DirFS(messages)); err != nil {
				t.Fatal(err)
			}

			s = start()
			var times atomic.Int64
			handler := func(context.Context, *sinks.Received) error {
				times.Add(1)
				return nil
			}
			policy := &sinks.ServePolicy{Inbox: tc.inbox}
			left := func() uint64 {
				stream, err := js.Stream(t.Context(), jetstream.CommandStream("fleet"))
				if err != nil {
					return 1 // not there again yet
				}
				return stream.CachedInfo().State.Msgs
			}
			restart := func() {
				s.Stop()
				if err := os.RemoveAll(messages); err != nil {
					t.Fatal(err)
				}
				if err := os.CopyFS(messages, os.DirFS(kept)); err != nil {
					t.Fatal(err)
				}
				start()
			}
			healed := func() {
				eventually(t, "nothing left in the stream", func() bool { return left() == 0 && times.Load() == tc.want })
			}
			serveWhile(t, c, handler, policy, func() {
				eventually(t, "the command's end", func() bool { return times.Load() == 1 && left() == 0 })
				consumer := filepath.Join(filepath.Dir(messages), "obs", "fleet", "o.dat")
				eventually(t, "the acknowledgement in "+consumer, func() bool { return ackOnDisk(t, consumer) })
				if !tc.other {
					restart()
					healed()
				}
			})
			if tc.other {
				restart()
				if n := left(); n != 1 {
					t.Fatalf("the stream has %d messages, want the one that was done", n)
				}
				serveWhile(t, c, handler, policy, healed)
			}
			for d, err := range c.Dead(t.Context(), "fleet") {
				t.Errorf("dead letter %+v of %s, %v; want none", d.Dead, d.Envelope.ID, err)
			}
			if n := times.Load(); n != tc.want {
				t.Errorf("carried out %d times, want %d", n, tc.want)
			}
		})
	}
}

// ackOnDisk reports whether a consumer's file has an acknowledgement: magic number,
// version, and how many deliveries were acknowledged. A server writes it up to 100 ms
// later, and one that stops in the middle of that leaves what was before.
func ackOnDisk(t testing.TB, file string) bool {
	t.Helper()
	state, err := os.ReadFile(file)
	if err != nil || len(state) < 3 {
		return false // not written yet, or just now
	}
	if state[0] != 22 || state[1] != 2 {
		t.Fatalf("%s begins with % x, want 16 02", file, state[:2])
	}
	acked, _ := binary.Uvarint(state[2:])
	return acked > 0
}
