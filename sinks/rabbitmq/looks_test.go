package rabbitmq_test

import (
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
)

// A policy may limit deliveries although our queues do not.
func TestLooksWearNothingOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.broker.DeadQueue("fleet")
	own := strings.TrimSuffix(dead, "dlq.fleet")
	s := rabbittest.Server(t)
	if _, err := s.Ctl(t.Context(), "set_policy", own, "^"+own, `{"delivery-limit":20}`, "--apply-to", "queues"); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = s.Ctl(t.Context(), "clear_policy", own) }()
	for i := range 3 {
		r.publish(t, dead, amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: fmt.Sprint("m", i), Type: "recall"})
	}
	for look := range 30 {
		got := ""
		for _, d := range r.letters(t) {
			got += d.Ref
		}
		if got != "m0m1m2" {
			t.Fatalf("look %d shows the letters %q, want m0m1m2", look, got)
		}
		if all, err := r.broker.Queues(t.Context()); err != nil || len(all) != 1 {
			t.Fatalf("look %d shows the queues %+v, %v; want fleet", look, all, err)
		}
	}
}
