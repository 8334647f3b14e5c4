package natsserver_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
)

// publisherVariable turns the test binary into a process that publishes to an
// embedded server on the directory that it names, and prints each ack's sequence
// until it is killed.
const publisherVariable = "ROWCALL_TEST_PUBLISH_TO"

func TestMain(m *testing.M) {
	dir := os.Getenv(publisherVariable)
	if dir == "" {
		m.Run()
		return
	}
	if err := publishForever(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func publishForever(ctx context.Context, dir string) error {
	s, err := natsserver.Start(ctx, &natsserver.Options{Dir: dir})
	if err != nil {
		return err
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		return err
	}
	for {
		ack, err := js.Publish(ctx, "s.one", make([]byte, 500))
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, ack.Sequence)
	}
}

func TestAckedMessagesSurviveKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	publisher := exec.CommandContext(t.Context(), self)
	publisher.Env = append(os.Environ(), publisherVariable+"="+dir)
	publisher.Stderr = os.Stderr
	out, err := publisher.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := publisher.Start(); err != nil {
		t.Fatal(err)
	}
	var acked uint64
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		seq, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			break // the last line may be cut
		}
		acked = seq
		if acked == 500 {
			if err := publisher.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = publisher.Wait() // "signal: killed"
	if acked < 500 {
		t.Fatalf("the publisher ended after %d acks, want 500", acked)
	}

	stream, err := natstest.JetStream(t, natstest.RunWith(t, &natsserver.Options{Dir: dir})).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.LastSeq < acked || info.State.Msgs < acked {
		t.Errorf("after kill -9: %d messages up to %d, want at least the %d that were acked", info.State.Msgs, info.State.LastSeq, acked)
	}
}

func TestSyncAlwaysStores(t *testing.T) {
	js := natstest.JetStream(t, natstest.RunWith(t, &natsserver.Options{SyncAlways: true}))
	stream := createStream(t, js)
	publish(t, js, []byte("x"))
	if got := count(t, stream); got != 1 {
		t.Errorf("messages = %d, want 1", got)
	}
}
