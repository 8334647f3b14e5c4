package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// RabbitMQ is one kind of place, with two schemes.
const (
	kindAMQP  = "amqp"
	kindAMQPS = "amqps"
)

// isAMQP reports whether a target is a URL of RabbitMQ.
func isAMQP(target string) bool { return targetKind(target) == kindAMQP && target != kindAMQP }

func (d *destination) openRabbitMQ(ctx context.Context, serverURL, database string, log *slog.Logger, out *announcer) error {
	c, err := d.options.login.connector(serverURL)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { c.Close(); return nil })
	opts := d.options.rabbitmq
	opts.Logger = log
	p, err := rabbitmq.NewPublisher(c, &opts)
	if err != nil {
		return err
	}
	if err := p.Open(ctx); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { p.Close(); return nil })
	d.listener = p

	keys := sinks.DatabaseAddress(database) + ".#"
	out.say(fmt.Sprintf("events go to RabbitMQ at %s: exchange %s, routing keys %s", c.Server(), p.Exchange(), keys),
		"publishing", "rabbitmq", c.Server(), "exchange", p.Exchange(), "keys", keys)
	return nil
}
