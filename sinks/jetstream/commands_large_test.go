package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
)

const largest = 64 << 10

// What Send takes can become a dead letter whole, with the longest id and error.
func TestLargestCommandFitsAsADeadLetter(t *testing.T) {
	t.Parallel()
	c := newCommands(t, connect(t, natstest.RunWith(t, &natsserver.Options{MaxPayload: largest})), nil)
	cmd := sinks.Command{Queue: "fleet", Name: "add-carriage", ID: strings.Repeat("%", sinks.MaxCommandID), Body: make([]byte, largest)}
	var large *sinks.CommandTooLargeError
	for {
		err := c.Send(t.Context(), cmd)
		if err == nil {
			break
		}
		if !errors.As(err, &large) || large.Size <= large.Limit {
			t.Fatalf("Send with a body of %d bytes = %v, want a CommandTooLargeError", len(cmd.Body), err)
		}
		cmd.Body = cmd.Body[:int64(len(cmd.Body))-(large.Size-large.Limit)]
	}
	serveWhile(t, c, func(context.Context, *sinks.Received) error {
		return sinks.Permanent(errors.New(strings.Repeat("ü", 5000)))
	}, nil, func() {
		d := onlyDeadLetter(t, c)
		if !bytes.Equal(d.Envelope.Body, cmd.Body) || d.Cut != 0 || d.Envelope.ID != cmd.ID {
			t.Errorf("dead letter has %d bytes, cut %d, want all %d", len(d.Envelope.Body), d.Cut, len(cmd.Body))
		}
	})
}

// A message from elsewhere may be as large as the server allows. It does not
// keep others from being buried.
func TestDeadLettersThatDoNotFitAreCut(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*nats.Msg{
		"body": {Data: bytes.Repeat([]byte("x"), largest)},
		"headers": {Header: nats.Header{
			"Note": {strings.Repeat("h", largest-1000)},
		}, Data: bytes.Repeat([]byte("x"), 100)},
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t, natstest.RunWith(t, &natsserver.Options{MaxPayload: largest}))
			c := newCommands(t, nc, nil)
			if err := c.Open(t.Context(), "fleet"); err != nil {
				t.Fatal(err)
			}
			m.Subject = "cmd.fleet.add-carriage"
			if _, err := nc.RequestMsg(m, time.Minute); err != nil {
				t.Fatal(err)
			}
			serveWhile(t, c, func(context.Context, *sinks.Received) error {
				return sinks.Permanent(errors.New("no such train"))
			}, nil, func() {
				d := onlyDeadLetter(t, c)
				if d.Dead.Error != "no such train" || len(d.Envelope.Body)+d.Cut != len(m.Data) {
					t.Errorf("dead letter %+v has %d bytes, cut %d; want %d in all", d.Dead, len(d.Envelope.Body), d.Cut, len(m.Data))
				}
				if name == "body" && d.Cut == 0 {
					t.Error("nothing was cut, so this test shows nothing")
				}
				if err := c.RetryDead(t.Context(), "fleet", d.Ref); d.Cut > 0 && (err == nil || !strings.Contains(err.Error(), "missing")) {
					t.Errorf("RetryDead of a cut command = %v, want a refusal", err)
				}
			})
		})
	}
}

// The safety net goes on behind what it cannot bury.
func TestSafetyNetIsNotHeldUp(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c := newCommands(t, nc, nil)
	if err := c.SendAll(t.Context(), benchCommands(2)); err != nil {
		t.Fatal(err)
	}
	// An advisory that nothing can be made of comes before one that counts.
	for _, seq := range []string{`"x"`, "2"} {
		advisory := fmt.Sprintf(`{"stream":"CMD_FLEET","stream_seq":%s,"deliveries":13}`, seq)
		if _, err := js.Publish(t.Context(), "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.CMD_FLEET.fleet", []byte(advisory)); err != nil {
			t.Fatal(err)
		}
	}
	block := make(chan struct{})
	serveWhile(t, c, func(context.Context, *sinks.Received) error {
		<-block
		return nil
	}, nil, func() {
		d := onlyDeadLetter(t, c)
		close(block)
		if d.Origin != "CMD_FLEET/2" || d.Dead.Reason != sinks.DeadUndeliverable {
			t.Errorf("dead letter %+v of %s, want the second command as undeliverable", d.Dead, d.Origin)
		}
	})
}
