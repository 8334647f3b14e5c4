package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// One service sends a command and waits for the reply; the other carries it
// out, once. What it cannot carry out becomes a dead letter.
func ExampleCommandBroker() {
	natstest.Example(exampleCommands)
	// Output:
	// reply: 4 more seats
	// command add-carriage for queue fleet, id booking-2, failed (permanent, 1 attempts): no such train
	// dead letter: booking-2 permanent no such train
}

func exampleCommands(ctx context.Context, url string) error {
	nc, err := jetstream.Connect(url, nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	broker, err := jetstream.NewCommandBroker(nc, nil)
	if err != nil {
		return err
	}
	commands, err := sinks.NewCommands(broker, nil)
	if err != nil {
		return err
	}
	defer commands.Close()
	inbox, err := jetstream.OpenInbox(ctx, nc, nil)
	if err != nil {
		return err
	}

	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- commands.Serve(serving, "fleet", func(_ context.Context, r *sinks.Received) error {
			if string(r.Body) != `{"train":7}` {
				return sinks.Permanent(errors.New("no such train"))
			}
			r.Reply([]byte("4 more seats"))
			return nil
		}, &sinks.ServePolicy{Inbox: inbox})
	}()

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	reply, err := commands.Call(ctx, sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "booking-1", Body: []byte(`{"train":7}`)})
	if err != nil {
		return err
	}
	fmt.Println("reply:", string(reply.Body))
	_, err = commands.Call(ctx, sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "booking-2", Body: []byte(`{"train":8}`)})
	fmt.Println(err)
	for d, err := range commands.Dead(ctx, "fleet") {
		if err != nil {
			return err
		}
		fmt.Println("dead letter:", d.Envelope.ID, d.Dead.Reason, d.Dead.Error)
	}
	stop()
	return <-served
}
