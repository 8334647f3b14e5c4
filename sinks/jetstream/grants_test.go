package jetstream_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// What docs/firehose.md says of permissions is enough, and no more than that.
func TestPermissionsOfAWriterAndOfTheReaderOfOneTable(t *testing.T) {
	t.Parallel()
	const (
		seats   = "cdc.shop.public.seats.>"
		next    = "$JS.API.CONSUMER.MSG.NEXT.CDC_SHOP.seats_reader"
		foreign = "cdc.shop.public.trains.create.000"
	)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "writer", Password: "x", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{
					"cdc.shop.>", "$JS.API.STREAM.CREATE.CDC_SHOP", "$JS.API.STREAM.INFO.CDC_SHOP",
					"$JS.API.STREAM.MSG.GET.CDC_SHOP", "$JS.API.STREAM.MSG.DELETE.CDC_SHOP",
				}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
			{Username: "reader", Password: "x", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{next, "$JS.ACK.CDC_SHOP.seats_reader.>"}},
				Subscribe: &server.SubjectPermission{Allow: []string{seats, "_INBOX.seats_reader.>"}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not accept connections")
	}
	refused := make(chan error, 16)
	login := func(user string, opts ...nats.Option) *nats.Conn {
		opts = append(opts, nats.UserInfo(user, "x"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		nc, err := jetstream.Connect(s.ClientURL(), &jetstream.ConnectOptions{Nats: opts})
		if err != nil {
			t.Fatalf("Connect as %s: %v", user, err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	wantRefused := func(what string) {
		t.Helper()
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v, want a permission violation", what, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s is allowed, want a permission violation", what)
		}
	}
	admin, reader := login("admin"), login("reader", nats.CustomInboxPrefix("_INBOX.seats_reader"))

	live, err := reader.SubscribeSync(seats)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.SubscribeSync("cdc.shop.>"); err != nil {
		t.Fatal(err)
	}
	wantRefused("a subscription to all tables")

	writer := login("writer")
	batches := sinktest.History(random(t, 1), 20)
	store(t, open(t, writer, nil), batches)
	if err := writer.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Publish(foreign, nil); err != nil {
		t.Fatal(err)
	}
	js, err := natsjs.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateConsumer(t.Context(), "CDC_SHOP", natsjs.ConsumerConfig{
		Durable: "seats_reader", FilterSubject: seats, AckPolicy: natsjs.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}

	for n := range consumer.CachedInfo().NumPending {
		told, err := live.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("live message %d: %v", n, err)
		}
		m, err := reader.Request(next, nil, time.Minute)
		if err != nil {
			t.Fatalf("message %d of the consumer: %v", n, err)
		}
		if string(m.Data) != string(told.Data) || m.Subject != told.Subject {
			t.Fatalf("message %d of the consumer is %s on %s, live it was %s on %s", n, m.Data, m.Subject, told.Data, told.Subject)
		}
		if err := m.AckSync(nats.AckWait(time.Minute)); err != nil {
			t.Fatalf("ack of message %d: %v", n, err)
		}
	}
	for _, subject := range []string{
		foreign, "$JS.API.STREAM.MSG.GET.CDC_SHOP", "$JS.API.CONSUMER.CREATE.CDC_SHOP.mine.cdc.shop.public.trains.>",
		"$JS.API.STREAM.PURGE.CDC_SHOP", "$JS.API.DIRECT.GET.CDC_SHOP." + foreign,
	} {
		if err := reader.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		wantRefused("to publish to " + subject)
	}
	select {
	case err := <-refused:
		t.Errorf("something more was refused: %v", err)
	default:
	}
}
