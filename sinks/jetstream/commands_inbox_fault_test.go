package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A reply that the bucket does not hold must not undo the memory of the
// command: its effect is there.
func TestInboxRemembersWithoutALargeReply(t *testing.T) {
	t.Parallel()
	i := openInbox(t, connect(t, natstest.RunWith(t, &natsserver.Options{MaxPayload: 64 << 10})), nil)
	calls := 0
	large := bytes.Repeat([]byte("x"), 60<<10) // base64 makes it larger than a message
	do := func(context.Context) ([]byte, error) {
		calls++
		return large, nil
	}
	reply, repeated, err := i.Once(t.Context(), "fleet", "1", do)
	if err != nil || repeated || !bytes.Equal(reply, large) {
		t.Errorf("Once = %d bytes, %t, %v; want the reply", len(reply), repeated, err)
	}
	_, _, err = i.Once(t.Context(), "fleet", "1", do)
	if err == nil || !strings.Contains(err.Error(), "was carried out before") {
		t.Errorf("Once again = %v, want an error that says that it was carried out", err)
	}
	if calls != 1 {
		t.Errorf("the command was carried out %d times, want once", calls)
	}
}

// A test's FailNow in a handler, for one, ends its goroutine.
func TestInboxLetsGoOfAHandlerThatExits(t *testing.T) {
	t.Parallel()
	i := openInbox(t, connect(t, natstest.Run(t)), &jetstream.InboxOptions{Claim: 15 * time.Second})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = i.Once(t.Context(), "fleet", "1", func(context.Context) ([]byte, error) {
			runtime.Goexit()
			return nil, nil
		})
	}()
	<-ended
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, repeated, err := i.Once(ctx, "fleet", "1", func(context.Context) ([]byte, error) { return nil, nil })
	if err != nil || repeated {
		t.Errorf("Once after a handler that exited = %t, %v; want it carried out", repeated, err)
	}
}

// The answers that are lost are those of the bucket; what was asked is done.
func TestInboxWithLostAnswers(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	var wg sync.WaitGroup // they wait for answers most of the time
	defer wg.Wait()
	for name, tc := range map[string]struct {
		lose int // answers to writes, beginning with the claim's
		do   error
	}{
		"of the claim":         {1, nil},
		"of claim and memory":  {2, nil},
		"of the claim's end":   {1, errors.New("not yet")},
		"of claim and its end": {2, errors.New("not yet")},
	} {
		wg.Go(func() {
			t.Run(name, func(t *testing.T) {
				w := &wire{stream: "KV_rowcall-inbox"}
				nc, err := jetstream.Connect(s.URL(), &jetstream.ConnectOptions{Nats: natsDialer(w)})
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				i := openInbox(t, nc, &jetstream.InboxOptions{StopAtUnclear: true, Claim: 15 * time.Second})
				calls := 0
				fail := tc.do
				do := func(context.Context) ([]byte, error) {
					calls++
					return []byte("done"), fail
				}
				w.lose.Store(int64(tc.lose))
				_, repeated, err := i.Once(t.Context(), "fleet", name, do)
				if !errors.Is(err, tc.do) || repeated {
					t.Errorf("Once = %t, %v; want it carried out with %v", repeated, err, tc.do)
				}
				w.lose.Store(0)
				want := 1
				if fail != nil {
					fail, want = nil, 2
				}
				reply, repeated, err := i.Once(t.Context(), "fleet", name, do)
				if err != nil || string(reply) != "done" || repeated != (want == 1) {
					t.Errorf("Once again = %q, %t, %v; want done", reply, repeated, err)
				}
				if calls != want {
					t.Errorf("the command was carried out %d times, want %d", calls, want)
				}
			})
		})
	}
}

// What a replica that lags says is not enough to give a command up.
func TestInboxIsUnclearOnlyIfTheBucketAgrees(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	i := openInbox(t, nc, &jetstream.InboxOptions{StopAtUnclear: true, Claim: time.Minute})
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), jetstream.DefaultInboxBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "fleet.1", []byte(`{"by":"another","until":"2020-01-01T00:00:00Z"}`)); err != nil {
		t.Fatal(err)
	}
	none := func(context.Context) ([]byte, error) {
		t.Error("the command was carried out")
		return nil, nil
	}
	for range 2 { // and so it stays
		if _, _, err := i.Once(t.Context(), "fleet", "1", none); !errors.Is(err, sinks.ErrUnclear) {
			t.Errorf("Once with an old claim = %v, want ErrUnclear", err)
		}
	}
}
