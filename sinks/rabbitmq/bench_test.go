package rabbitmq_test

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// benchQueue opens the queue fleet under a prefix of its own.
func benchQueue(b *testing.B) (c *sinks.Commands, url, queue string) {
	b.Helper()
	s := rabbittest.Server(b)
	p := prefix(b, s)
	broker, err := rabbitmq.NewCommandBroker(connector(b, s, new(wire)), &rabbitmq.CommandOptions{Prefix: p})
	if err != nil {
		b.Fatal(err)
	}
	if c, err = sinks.NewCommands(broker, nil); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	if err := c.Open(b.Context(), "fleet"); err != nil {
		b.Fatal(err)
	}
	return c, s.URL(), broker.Queue("fleet")
}

func BenchmarkCommandsSend(b *testing.B) {
	c, _, _ := benchQueue(b)
	cmds := make([]sinks.Command, b.N)
	for i := range cmds {
		cmds[i] = sinks.Command{Queue: "fleet", Name: "add-carriage", ID: fmt.Sprint(i), Body: []byte(`{"train":7,"seats":4}`)}
	}
	b.ResetTimer()
	if err := c.SendAll(b.Context(), cmds); err != nil {
		b.Fatal(err)
	}
}

// The least that storing the same messages in the same queue takes: as many at a
// time, each confirmed.
func BenchmarkCommandsRawAsync(b *testing.B) {
	_, url, queue := benchQueue(b)
	conn, err := amqp.Dial(url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		b.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	body := []byte(`{"train":7,"seats":4}`)
	const window = 1000
	waits := make([]*amqp.DeferredConfirmation, 0, window)
	b.ResetTimer()
	for n := 0; n < b.N; n += len(waits) {
		waits = waits[:0]
		for i := range min(window, b.N-n) {
			w, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{
				Body: body, DeliveryMode: amqp.Persistent, MessageId: fmt.Sprint(n + i), Type: "add-carriage",
			})
			if err != nil {
				b.Fatal(err)
			}
			waits = append(waits, w)
		}
		for _, w := range waits {
			if !w.Wait() {
				b.Fatal("a message was refused")
			}
		}
	}
}
