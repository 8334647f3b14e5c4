package jetstream_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func TestConnectUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, err = jetstream.Connect("nats://app:hunter2@"+address+",nats://token@"+address, nil)
	var unreachable *sinks.UnreachableError
	if !errors.As(err, &unreachable) {
		t.Fatalf("Connect = %v, want an UnreachableError", err)
	}
	if got, want := strings.Join(unreachable.Servers, " "), address+" "+address; got != want {
		t.Errorf("Servers = %q, want %q", got, want)
	}
	noSecrets(t, err)
}

func TestConnectRejectsURLWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"nats://app:hunter2%@h", "nats://app:hunter2/@h", "nats://app:hunter2@", "", "nats://app:hunter2@h:port"} {
		_, err := jetstream.Connect(u, nil)
		if err == nil {
			t.Errorf("Connect(%q) = nil, want an error", u)
			continue
		}
		noSecrets(t, err)
	}
}

func noSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"hunter2", "app", "token"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error gives away %q: %v", secret, err)
		}
	}
}

func TestNewReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	_, err := jetstream.New(nc, "", &jetstream.Options{Stream: "a.b", Partitions: 2000, Replicas: -1, MaxPending: -1, AckTimeout: -1})
	if err == nil {
		t.Fatal("New = nil, want an error")
	}
	for _, want := range []string{"Stream", "Partitions", "Replicas", "MaxPending", "AckTimeout", "database"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q in it", err, want)
		}
	}
	if _, err := jetstream.New(nil, "shop", nil); err == nil {
		t.Error("New without a connection = nil, want an error")
	}
}
