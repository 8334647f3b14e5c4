package jetstream_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// users starts a server with an admin, who may do all, and a clerk, who may not publish
// to some subjects. It returns how to log in.
func users(t *testing.T, denied ...string) func(user string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	s := bareServer(t, &server.Options{
		JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "clerk", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: denied}}},
		},
	})
	return func(user string, opts ...nats.Option) *nats.Conn {
		nc, err := jetstream.Connect(s.ClientURL(), &jetstream.ConnectOptions{
			User: user, Password: "x", Nats: append(opts, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
}

func wantPlaceError(t *testing.T, what string, err error, text string) {
	t.Helper()
	if _, ok := errors.AsType[*sinks.PlaceError](err); !ok || !strings.Contains(err.Error(), text) {
		t.Errorf("%s = %v, want a PlaceError with %q", what, err, text)
	}
}

// A user who may not publish is told so. The server says nothing of the messages.
func TestFirehoseThatMayNotPublishSaysSo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		denied string
		opts   jetstream.Options
	}{
		"single":             {"cdc.shop.>", jetstream.Options{FastIngest: jetstream.FastIngestOff}},
		"fast ingest":        {"cdc.shop.>", always},
		"the end of a batch": {"cdc.shop._control.>", always},
		"whole":              {"cdc.shop.>", asWholes},
	} {
		t.Run(name, func(t *testing.T) {
			nc := users(t, tc.denied)("clerk")
			tc.opts.AckTimeout = time.Second
			f := openAnew(t, nc, &tc.opts)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := feed(ctx, f, []*listeners.Batch{transaction(1, 3)})
			if err == nil {
				err = f.Flush(ctx)
			}
			wantPlaceError(t, "storing what may not be published", err, "allow it to publish to cdc.shop.>")
		})
	}
}

// So is one who may not make consumers, or ask them.
func TestSourceThatMayNotReadSaysSo(t *testing.T) {
	t.Parallel()
	for _, denied := range []string{"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.MSG.NEXT.>"} {
		t.Run(denied, func(t *testing.T) {
			t.Parallel()
			login := users(t, denied)
			store(t, open(t, login("admin"), nil), []*listeners.Batch{transaction(1, 3)})
			s := source(t, login("clerk"), &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
			sinktest.Subscribe(t, s, new(listenertest.Recorder), nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			wantPlaceError(t, "Run", s.Run(ctx), "this user may not do what is needed")
		})
	}
}

// A member of a group is, too.
func TestMemberThatMayNotReadSaysSo(t *testing.T) {
	t.Parallel()
	login := users(t, "$JS.API.CONSUMER.MSG.NEXT.>")
	store(t, open(t, login("admin"), nil), []*listeners.Batch{transaction(1, 3)})
	groups, err := jetstream.NewGroups(login("clerk"), "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	group, err := sinks.NewGroup(groups, "team", &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = group.Run(ctx, func(sinks.GroupPartition) listeners.Listener { return new(listenertest.Recorder) })
	wantPlaceError(t, "Run", err, "this user may not do what is needed")
}

// And a bucket's writer who may not purge what a predecessor has left.
func TestBucketThatMayNotBePurgedSaysSo(t *testing.T) {
	t.Parallel()
	login := users(t, "$JS.API.STREAM.PURGE.>")
	leftToPurge(t, login("admin"))
	next, err := jetstream.NewLatest(login("clerk"), "shop", "", &jetstream.Options{AckTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	wantPlaceError(t, "Open", next.Open(t.Context()), "this user may not do what is needed")
}

// A queue that can have no consumer more is an error, rather than waited for.
func TestQueueWithoutRoomForItsConsumerSaysSo(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	createCommandStream(t, s.URL(), natsjs.StreamConfig{
		Name: "CMD_FLEET", Subjects: []string{"cmd.fleet.>", "other"}, Retention: natsjs.WorkQueuePolicy, MaxConsumers: 1,
	})
	js := natstest.JetStream(t, s)
	other := natsjs.ConsumerConfig{Durable: "other", FilterSubject: "other", AckPolicy: natsjs.AckExplicitPolicy}
	if _, err := js.CreateConsumer(t.Context(), "CMD_FLEET", other); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := newCommands(t, connect(t, s), nil).Serve(ctx, "fleet", func(context.Context, *sinks.Received) error { return nil }, nil)
	if wrong, ok := errors.AsType[*sinks.QueueError](err); !ok || !strings.Contains(wrong.Reason, "max_consumers") {
		t.Errorf("Serve = %v, want a QueueError that names max_consumers", err)
	}
}

// A deafened dialer's connections lose what they are to send if it has a text in it.
type deafened string

func (d deafened) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, 10*time.Second)
	return &deafenedConn{Conn: conn, text: string(d)}, err
}

type deafenedConn struct {
	net.Conn
	text string
}

func (c *deafenedConn) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		return len(p), nil
	}
	return c.Conn.Write(p)
}
