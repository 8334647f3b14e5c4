package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

const (
	fleetStream  = "CMD_FLEET"
	fleetSubject = "cmd.fleet.add-carriage"
	ackWait      = 5 * time.Second
)

// A fleet is the service that adds carriages, and the queue of commands to it.
// A command is not an event: one service carries it out, and it stays in the
// queue until that service says that it has.
type fleet struct {
	trip      *trip
	conn      *pgx.Conn
	js        natsjs.JetStream
	consuming natsjs.ConsumeContext
}

// An addCarriage is a command.
type addCarriage struct {
	Train int `json:"train"`
	Seats int `json:"seats"`
}

func newFleet(ctx context.Context, t *trip) (*fleet, error) {
	f := &fleet{trip: t}
	var err error
	if f.conn, err = pgx.Connect(ctx, t.servers.databaseURL()); err != nil {
		return f, err
	}
	if f.js, err = natsjs.New(t.servers.nc); err != nil {
		return f, err
	}
	stream, err := f.js.CreateStream(ctx, natsjs.StreamConfig{
		Name: fleetStream, Subjects: []string{"cmd.fleet.>"}, Retention: natsjs.WorkQueuePolicy,
	})
	if err != nil {
		return f, fmt.Errorf("create the queue of commands: %w", err)
	}
	consumer, err := stream.CreateConsumer(ctx, natsjs.ConsumerConfig{
		Durable: "fleet", AckPolicy: natsjs.AckExplicitPolicy, AckWait: ackWait,
	})
	if err != nil {
		return f, fmt.Errorf("create the fleet service's consumer: %w", err)
	}
	f.consuming, err = consumer.Consume(func(m natsjs.Msg) { f.handle(ctx, m) })
	return f, err
}

// command puts a command into the queue. It returns nil when it is stored.
func (f *fleet) command(ctx context.Context, train int) error {
	body, err := json.Marshal(addCarriage{Train: train, Seats: 4})
	if err != nil {
		return err
	}
	// The id makes a repeated command one command.
	_, err = f.js.Publish(ctx, fleetSubject, body, natsjs.WithMsgID("add-carriage-"+strconv.Itoa(train)))
	if err != nil {
		return fmt.Errorf("send the command %s: %w", fleetSubject, err)
	}
	return nil
}

// handle carries out one command, and only then takes it off the queue.
func (f *fleet) handle(ctx context.Context, m natsjs.Msg) {
	var c addCarriage
	if err := json.Unmarshal(m.Data(), &c); err != nil {
		_ = m.TermWithReason(err.Error())
		return
	}
	if err := addSeats(ctx, f.conn, c); err != nil {
		f.trip.story.tell(byFleet, "cannot add a carriage, will try again: %v", err)
		_ = m.NakWithDelay(time.Second)
		return
	}
	if err := m.DoubleAck(ctx); err != nil {
		f.trip.story.tell(byFleet, "the command was carried out, but its end was not noted: %v", err)
		return
	}
	f.trip.story.tell(byFleet, "%s: %d new seats on %s, command acknowledged", m.Subject(), c.Seats, f.trip.trains[c.Train])
}

func (f *fleet) close(ctx context.Context) error {
	if f.consuming != nil {
		f.consuming.Stop()
		<-f.consuming.Closed()
	}
	if f.conn == nil {
		return nil
	}
	return f.conn.Close(ctx)
}

// addSeats can be called again for the same command.
func addSeats(ctx context.Context, conn *pgx.Conn, c addCarriage) error {
	_, err := conn.Exec(ctx, `
		INSERT INTO seats
		SELECT $1 * 100 + n, $1, (n + 1) / 2 || CASE WHEN n % 2 = 1 THEN 'A' ELSE 'B' END, 20 + 5 * $1, NULL
		FROM generate_series(9, 8 + $2::int) AS n ON CONFLICT DO NOTHING`, c.Train, c.Seats)
	return err
}

func trainNames(ctx context.Context, conn *pgx.Conn) (map[int]string, error) {
	rows, err := conn.Query(ctx, "SELECT id, name FROM trains")
	if err != nil {
		return nil, err
	}
	names := make(map[int]string)
	var id int
	var name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		names[id] = name
		return nil
	})
	return names, err
}
