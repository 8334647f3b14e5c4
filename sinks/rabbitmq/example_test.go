package rabbitmq_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// A service that serves its queue until it is interrupted.
func ExampleNewCommandBroker() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serveFleet(ctx, "amqp://app:secret@localhost/shop"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func serveFleet(ctx context.Context, serverURL string) error {
	connector, err := rabbitmq.NewConnector(serverURL, nil)
	if err != nil {
		return err
	}
	defer connector.Close()
	broker, err := rabbitmq.NewCommandBroker(connector, nil)
	if err != nil {
		return err
	}
	commands, err := sinks.NewCommands(broker, &sinks.CommandsOptions{Owner: "fleet-service", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	defer commands.Close()
	return commands.Serve(ctx, "fleet", func(_ context.Context, r *sinks.Received) error {
		return addCarriage(r.Body) // only when that returns nil it is acknowledged
	}, &sinks.ServePolicy{Concurrency: 4})
}

func addCarriage([]byte) error { return nil }

// Events of a source, such as a cdc.Source, go to a topic exchange. A queue that
// is bound with "cdc.shop.public.seats.update.*" gets the updates of one table.
func ExampleNewPublisher() {
	publish := func(ctx context.Context, source listeners.Source) error {
		connector, err := rabbitmq.NewConnector("amqp://localhost", nil)
		if err != nil {
			return err
		}
		defer connector.Close()
		publisher, err := rabbitmq.NewPublisher(connector, nil)
		if err != nil {
			return err
		}
		if err := publisher.Open(ctx); err != nil {
			return err
		}
		defer publisher.Close()
		sub, err := source.Subscribe("rabbitmq", publisher, nil)
		if err != nil {
			return err
		}
		<-sub.Done()
		return sub.Err()
	}
	_ = publish
}
