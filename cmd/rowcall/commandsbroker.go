package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// addAMQP adds the flags of queues in RabbitMQ.
func (f *commandsFlags) addAMQP(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.amqpURL, "amqp-url", "", "RabbitMQ server that has the queues, a `URL` such as amqp://user@host:5672/vhost, instead of NATS")
	cmd.Flags().StringVar(&f.amqpPrefix, "amqp-prefix", "", "`prefix` of the queues' names there")
}

// checkAMQP finds what is wrong without a connection. It never quotes the URL.
func (a *app) checkAMQP(cmd *cobra.Command, f *commandsFlags) error {
	faults := []error{
		a.exclude(cmd, "amqp-url", "the queues are in RabbitMQ", append(f.nats.flags(), "nats-url")...),
		a.needs(cmd, "amqp-prefix", "amqp-url"),
	}
	if f.amqpURL != "" {
		_, err := rabbitmq.NewConnector(f.amqpURL, nil)
		faults = append(faults, spelled(a.spelling("amqp-url"), err))
	}
	return usage(faults...)
}

// openBroker connects to the broker of the queues. The caller closes what it
// returns, after the broker.
func (f *commandsFlags) openBroker(ctx context.Context) (sinks.CommandBroker, func(), error) {
	if f.amqpURL != "" {
		c, err := rabbitmq.NewConnector(f.amqpURL, &rabbitmq.ConnectOptions{Name: "rowcall commands"})
		if err != nil {
			return nil, nil, err
		}
		if err := c.Ping(ctx); err != nil {
			c.Close()
			return nil, nil, err
		}
		b, err := rabbitmq.NewCommandBroker(c, &rabbitmq.CommandOptions{Prefix: f.amqpPrefix, MustExist: true})
		if err != nil {
			c.Close()
			return nil, nil, err
		}
		return b, c.Close, nil
	}
	nc, err := f.nats.connect(f.natsURL, "rowcall commands")
	if err != nil {
		return nil, nil, err
	}
	b, err := jetstream.NewCommandBroker(nc, &jetstream.CommandOptions{MustExist: true, Domain: f.nats.domain, APIPrefix: f.nats.apiPrefix})
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return b, nc.Close, nil
}

// spelled puts a flag in front of what is wrong with its value.
func spelled(flag string, err error) error {
	if err == nil {
		return nil
	}
	return errors.New(flag + ": " + strings.TrimPrefix(err.Error(), "rabbitmq: "))
}
