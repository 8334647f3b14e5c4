package rabbitmq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// A server that takes nothing says so to the connection that it has. When that
// breaks, nobody says that it takes again.
func TestAlarmEndsWithItsConnection(t *testing.T) {
	s := rabbittest.Server(t)
	w := new(wire)
	b, err := rabbitmq.NewCommandBroker(connector(t, s, w), &rabbitmq.CommandOptions{Prefix: prefix(t, s), ConfirmTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.OpenQueue(t.Context(), "fleet"); err != nil {
		t.Fatalf("OpenQueue: %v", err)
	}
	publish := func() error {
		for _, err := range b.Publish(t.Context(), []sinks.CommandEnvelope{{Command: sinks.Command{Queue: "fleet", Name: "recall", ID: "a"}}}) {
			return err
		}
		return nil
	}
	watermark := func(fraction string) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
		defer cancel()
		if _, err := s.Ctl(ctx, "set_vm_memory_high_watermark", fraction); err != nil {
			t.Error(err)
		}
	}
	defer watermark("0.4")
	watermark("0.000001")
	until(t, "a full queue while the server has no memory", func() bool { return errors.Is(publish(), sinks.ErrQueueFull) })
	w.cut()
	watermark("0.4")
	until(t, "a command after the alarm", func() bool { return publish() == nil })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("no %s within three minutes", what)
		}
	}
}
