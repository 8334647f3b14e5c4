package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowcall/rowcall/internal/certtest"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// scriptSecureNATS starts a NATS server that wants TLS with a certificate, and an
// NKEY or a user. It sets $NATS_URL, and writes ca.pem, cert.pem, key.pem and
// user.nk.
func scriptSecureNATS(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "securenats [DOMAIN]")
	certs := certtest.In(tb(ts), ts.MkAbs("."))
	user, err := nkeys.CreateUser()
	ts.Check(err)
	seed, err := user.Seed()
	ts.Check(err)
	public, err := user.PublicKey()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("user.nk"), seed, 0o600))
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: tb(ts).TempDir(),
		TLS: true, TLSVerify: true, TLSTimeout: 30, TLSConfig: certs.Server, AuthTimeout: 30,
		Nkeys: []*server.NkeyUser{{Nkey: public}}, Users: []*server.User{{Username: "app", Password: "s3cr3t word"}},
	}
	if len(args) > 0 {
		o.JetStreamDomain = args[0]
	}
	s, err := server.NewServer(o)
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		ts.Fatalf("the server is not ready after %s", patience)
	}
	ts.Setenv("NATS_URL", fmt.Sprintf("nats://%s", s.Addr()))
}

// scriptSecureKafka starts a fake Kafka that wants TLS and a user. It sets
// $KAFKA_URL, and writes ca.pem, cert.pem and key.pem.
func scriptSecureKafka(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "securekafka")
	certs := certtest.In(tb(ts), ts.MkAbs("."))
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(certs.Server), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "app", "s3cr3t word"))
	ts.Check(err)
	ts.Defer(c.Close)
	ts.Setenv("KAFKA_URL", "kafka://"+strings.Join(c.ListenAddrs(), ","))
}

func TestRabbitMQIsReachedWithTheFilesOfThePlace(t *testing.T) {
	t.Parallel()
	certs := certtest.New(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", certs.Server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(chan tls.ConnectionState, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if c, ok := conn.(*tls.Conn); ok && c.Handshake() == nil {
				select {
				case seen <- c.ConnectionState():
				default: // it comes again
				}
			}
			conn.Close()
		}
	}()
	login := &targetLogin{
		user: "u", password: "hidden word@",
		tls: tlsFiles{ca: certs.CA, cert: certs.Cert, key: certs.Key, serverName: certtest.ServerName},
	}
	c, err := login.connector("amqps://" + l.Addr().String() + "/vhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// On a busy machine a handshake may take longer than one Ping.
	var state tls.ConnectionState
	pgtest.Eventually(t, patience, func() error {
		err := c.Ping(t.Context()) // nobody there knows AMQP
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Fatalf("Ping = %v, want an error without the password", err)
		}
		select {
		case state = <-seen:
			return nil
		default:
			return fmt.Errorf("nobody came with TLS: %w", err)
		}
	})
	if state.ServerName != certtest.ServerName || len(state.PeerCertificates) != 1 {
		t.Errorf("the server was asked for %q with %d certificates, want %q and 1", state.ServerName, len(state.PeerCertificates), certtest.ServerName)
	}
	login.tls.serverName = "elsewhere.test"
	other, err := login.connector("amqps://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	pgtest.Eventually(t, patience, func() error {
		if err := other.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "elsewhere.test") {
			return fmt.Errorf("Ping of another server = %w, want an error about its name", err)
		}
		return nil
	})
}

func TestTheLoginOfAPlaceGoesIntoItsURL(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		login        targetLogin
		target, want string
	}{
		"nothing":        {targetLogin{}, "kafka://a,b:9/?sasl=plain", "kafka://a,b:9/?sasl=plain"},
		"Kafka":          {targetLogin{user: "u", password: "p@?tls=: /", sasl: "plain", encrypt: true}, "kafka://a,b:9", "kafka://u:p%40%3Ftls=%3A%20%2F@a,b:9?sasl=plain&tls=true"},
		"beside the URL": {targetLogin{user: "u", sasl: "plain", tls: tlsFiles{ca: "x"}}, "kafka://a?tls=true", "kafka://u:@a?sasl=plain&tls=true"},
		"RabbitMQ":       {targetLogin{user: "u", password: "p", tls: tlsFiles{ca: "x"}}, "amqps://a/v", "amqps://u:p@a/v"},
		"no URL":         {targetLogin{user: "u"}, "nats", "nats"},
	} {
		if got, err := tc.login.url(tc.target); err != nil || got != tc.want {
			t.Errorf("%s: url(%q) = %q, %v; want %q", name, tc.target, got, err, tc.want)
		}
	}
}
