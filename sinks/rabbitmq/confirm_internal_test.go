package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
)

// Who gives a message up does not hear that it came back. The next message with its
// id is another one, and what nobody asks for is not kept.
func TestAReturnThatNobodyWaitsForIsForgotten(t *testing.T) {
	t.Parallel()
	connector, err := NewConnector(rabbittest.Server(t).URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer connector.Close()
	p := newConfirmer(connector, defaultTimeout)
	defer p.close()
	c, err := p.channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	queue := "t" + rand.Text()[:8]
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	message := func(id int) outgoing {
		return outgoing{key: queue, mandatory: true, message: amqp.Publishing{MessageId: fmt.Sprint(id)}}
	}
	const messages = 50
	for i := range messages {
		if err := p.one(given, message(i)); !errors.Is(err, context.Canceled) && !errors.Is(err, errUnroutable) {
			t.Fatalf("publish %d = %v, want the end of its context", i, err)
		}
	}
	if err := connector.withChannel(t.Context(), func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, false, false, true, false, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		if err := p.one(t.Context(), message(i)); err != nil {
			t.Errorf("publish %d again, with a queue = %v, want nil", i, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.returned) != 0 || len(c.orphans) != 0 {
		t.Errorf("%d returns and %d orphans are kept, want none", len(c.returned), len(c.orphans))
	}
}
