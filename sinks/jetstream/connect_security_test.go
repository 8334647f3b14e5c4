package jetstream_test

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/rowcall/rowcall/internal/certtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnectWithWhatTheServerAsksFor(t *testing.T) {
	t.Parallel()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	certs := certtest.New(t)
	for name, tc := range map[string]struct {
		server server.Options
		right  jetstream.ConnectOptions
	}{
		"user and password": {server.Options{Username: "app", Password: "hunter2"}, jetstream.ConnectOptions{User: "app", Password: "hunter2"}},
		"token":             {server.Options{Authorization: "hunter2"}, jetstream.ConnectOptions{Token: "hunter2"}},
		"nkey": {
			server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}},
			jetstream.ConnectOptions{NKeySeedFile: writeFile(t, "seed", seed)},
		},
		"certificates": {
			server.Options{TLS: true, TLSVerify: true, TLSTimeout: 10, TLSConfig: certs.Server},
			jetstream.ConnectOptions{CAFile: certs.CA, CertFile: certs.Cert, KeyFile: certs.Key},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := bareServer(t, &tc.server)
			var unreachable *sinks.UnreachableError
			if _, err := jetstream.Connect(s.ClientURL(), nil); !errors.As(err, &unreachable) {
				t.Errorf("Connect without = %v, want an UnreachableError", err)
			}
			nc, err := jetstream.Connect(s.ClientURL(), &tc.right)
			if err != nil {
				t.Fatalf("Connect = %v", err)
			}
			nc.Close()
		})
	}
}

func TestConnectOptionsThatCannotBe(t *testing.T) {
	t.Parallel()
	certs := certtest.New(t)
	for name, tc := range map[string]struct {
		opts jetstream.ConnectOptions
		want string
	}{
		"two ways":           {jetstream.ConnectOptions{User: "a", Token: "hunter2"}, "only one of"},
		"password alone":     {jetstream.ConnectOptions{Password: "hunter2"}, "no User"},
		"certificate alone":  {jetstream.ConnectOptions{CertFile: certs.Cert}, "go together"},
		"files and a config": {jetstream.ConnectOptions{TLS: new(tls.Config), CAFile: certs.CA}, "beside"},
		"no such file":       {jetstream.ConnectOptions{CAFile: "/nowhere/ca.pem"}, "CAFile: stat /nowhere/ca.pem"},
		"no seed":            {jetstream.ConnectOptions{NKeySeedFile: writeFile(t, "seed", []byte("hunter2"))}, "begins with SU"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jetstream.Connect("nats://127.0.0.1:1", &tc.opts)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Connect = %v, want %q in it, and no secret", err, tc.want)
			}
		})
	}
}

// A server of a domain is asked by that name, as from behind a leaf node.
func TestFirehoseInADomain(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]jetstream.Options{
		"domain": {Domain: "hub"}, "prefix": {APIPrefix: "$JS.hub.API"},
	} {
		t.Run(name, func(t *testing.T) {
			s := bareServer(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), JetStreamDomain: "hub"})
			nc := dialBare(t, s)
			f := open(t, nc, &opts)
			store(t, f, []*listeners.Batch{transaction(1, 5)})
			f.Close()
			store(t, open(t, nc, &opts), []*listeners.Batch{transaction(1, 5), transaction(2, 5)})
			verify(t, nc, []*listeners.Batch{transaction(1, 5), transaction(2, 5)})
		})
	}
	s := bareServer(t, &server.Options{JetStream: true, StoreDir: t.TempDir()})
	_, err := tryOpen(t, dialBare(t, s), &jetstream.Options{Domain: "elsewhere", AckTimeout: time.Second})
	wantStreamError(t, err, "no JetStream")
	if _, err := jetstream.New(dialBare(t, s), "shop", &jetstream.Options{Domain: "a.b", APIPrefix: "x y"}); err == nil ||
		!strings.Contains(err.Error(), "set one") || !strings.Contains(err.Error(), "wildcards") {
		t.Errorf("New with a domain and a prefix = %v, want both faults", err)
	}
}

func TestStreamIsMadeAsAskedFor(t *testing.T) {
	t.Parallel()
	s := bareServer(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), Tags: []string{"disk:ssd"}})
	nc := dialBare(t, s)
	f := open(t, nc, &jetstream.Options{
		Compression: true, Tags: []string{"disk:ssd"}, MaxAge: time.Hour, MaxBytes: 1 << 20, MaxMsgs: 1000,
	})
	store(t, f, []*listeners.Batch{sinktest.Transaction(1, 5)})
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), f.Name())
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	if c.Compression != natsjs.S2Compression || c.Placement == nil || len(c.Placement.Tags) != 1 || c.MaxAge != time.Hour || c.MaxBytes != 1<<20 || c.MaxMsgs != 1000 {
		t.Errorf("the stream's configuration = %+v, want the options' compression, tags and limits", c)
	}
	_, err = tryOpen(t, nc, &jetstream.Options{Stream: "OTHER", Tags: []string{"disk:tape"}})
	if err == nil {
		t.Error("Open with tags that no server has = nil, want an error")
	}
}
