package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rowcall/rowcall/sinks"
)

// scriptImportNATS starts a server with two accounts. HUB has JetStream, and
// exports its API and what is published to streams; APP imports them, the API
// under hub.API. $NATS_URL is for APP, $HUB_URL for HUB.
func scriptImportNATS(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "importnats")
	file := ts.MkAbs("server.conf")
	ts.Check(os.WriteFile(file, fmt.Appendf(nil, `
		jetstream { store_dir: %q }
		accounts {
			HUB {
				jetstream: enabled
				users: [{ user: hub, password: hub }]
				exports: [
					{ service: "$JS.API.>", response_type: stream }, { service: "$JS.ACK.>" }, { service: "cdc.>" }, { service: "cmd.>" }
				]
			}
			APP {
				users: [{ user: app, password: app }]
				imports: [
					{ service: { account: HUB, subject: "$JS.API.>" }, to: "hub.API.>" }, { service: { account: HUB, subject: "$JS.ACK.>" } }
					{ service: { account: HUB, subject: "cdc.>" } }, { service: { account: HUB, subject: "cmd.>" } }
				]
			}
		}`, tb(ts).TempDir()), 0o600))
	o, err := server.ProcessConfigFile(file)
	ts.Check(err)
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		ts.Fatalf("the server is not ready after %s", patience)
	}
	ts.Setenv("NATS_URL", fmt.Sprintf("nats://app:app@%s", s.Addr()))
	ts.Setenv("HUB_URL", fmt.Sprintf("nats://hub:hub@%s", s.Addr()))
}

// A replay that reads to the end of what is stored must not wait for brokers
// that are not there.
func TestReplayFromAnUnreachableKafkaIsAnError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f := replayFrom{source: kafkaScheme + "user:secret@" + nobody + "?sasl=plain", database: "shop"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // less than what replay waits, so that the test is short
	defer cancel()
	_, err = f.open(ctx, replayStart{}, &sinks.SourceOptions{UntilTip: true})
	unreachable, ok := errors.AsType[*sinks.UnreachableError](err)
	if !ok || len(unreachable.Servers) != 1 || unreachable.Servers[0] != nobody {
		t.Errorf("open() = %v, want that Kafka is not reachable at %s", err, nobody)
	}
}
