package rabbitmq

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/listeners"
)

// A channel that is gone takes no event, and the end of a batch behind it, which
// needs no message, must not count in its place.
func TestNothingIsConfirmedBeforeWhatFailed(t *testing.T) {
	t.Parallel()
	connector, err := NewConnector(rabbittest.Server(t).URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer connector.Close()
	p, err := NewPublisher(connector, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := p.out.channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.out.drop(c)
	event := &publication{outgoing: outgoing{exchange: DefaultExchange, message: amqp.Publishing{Headers: amqp.Table{}}}}
	end := &publication{at: listeners.Position{Commit: 7}, ends: true}
	p.pending = []*publication{event, end}
	p.begin(c)
	if len(p.session.sent) != 0 || p.fault == nil {
		t.Errorf("begin on a closed channel: %d sent, fault %v; want none sent, and a fault", len(p.session.sent), p.fault)
	}
	p.confirmed(end)
	if got := p.Stored(); !got.IsZero() || len(p.pending) != 2 {
		t.Errorf("Stored = %s with %d pending, want zero with 2", got, len(p.pending))
	}
}
