package main

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// scriptRabbitMQ starts a RabbitMQ, which all scripts share, and sets $AMQP_URL.
// It skips the script where there is none.
func scriptRabbitMQ(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "rabbitmq")
	ts.Setenv("AMQP_URL", rabbittest.Server(tb(ts)).URL())
}

// scriptBind is "bind QUEUE EXCHANGE KEY": it makes the exchange, and a queue
// that gets what has such a routing key.
func scriptBind(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 3, "bind QUEUE EXCHANGE KEY")
	withAMQP(ts, func(ch *amqp.Channel) {
		ts.Check(ch.ExchangeDeclare(args[1], amqp.ExchangeTopic, true, false, false, false, nil))
		_, err := ch.QueueDeclare(args[0], true, false, false, false, nil)
		ts.Check(err)
		ts.Check(ch.QueueBind(args[0], args[2], args[1], false, nil))
	})
}

// scriptTake is "take QUEUE": it prints the routing key and the body of what is
// in a queue, and takes it out.
func scriptTake(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "take QUEUE")
	withAMQP(ts, func(ch *amqp.Channel) {
		for {
			m, ok, err := ch.Get(args[0], true)
			ts.Check(err)
			if !ok {
				return
			}
			fmt.Fprintf(ts.Stdout(), "%s %s\n", m.RoutingKey, m.Body)
		}
	})
}

func withAMQP(ts *testscript.TestScript, do func(*amqp.Channel)) {
	conn, err := amqp.Dial(ts.Getenv("AMQP_URL"))
	ts.Check(err)
	defer conn.Close()
	ch, err := conn.Channel()
	ts.Check(err)
	do(ch)
}

// amqpBroker is the broker of the commands that a script sends and serves once
// it has a RabbitMQ.
func amqpBroker(ts *testscript.TestScript) (broker sinks.CommandBroker, closeConnector func()) {
	c, err := rabbitmq.NewConnector(ts.Getenv("AMQP_URL"), nil)
	ts.Check(err)
	b, err := rabbitmq.NewCommandBroker(c, nil)
	ts.Check(err)
	return b, c.Close
}
