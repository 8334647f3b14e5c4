package main

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// Of the fleet service.
const (
	fleetQueue   = "fleet"
	fleetCommand = "add-carriage"
)

// A fleet is the service that adds carriages, and the queue of commands to it.
// A command is not an event: one service carries it out, and it stays in the
// queue until that service has.
type fleet struct {
	trip     *trip
	conn     *pgx.Conn // of the handler
	commands *sinks.Commands
	stop     context.CancelFunc
	served   chan error // nil before it is served
}

// An addCarriage is a command.
type addCarriage struct {
	Train int `json:"train"`
	Seats int `json:"seats"`
}

// newFleet makes the queue and begins to serve it. It returns what it began
// also on error. The caller closes it.
func newFleet(ctx context.Context, t *trip) (*fleet, error) {
	f := &fleet{trip: t}
	var err error
	if f.conn, err = pgx.Connect(ctx, t.servers.databaseURL()); err != nil {
		return f, err
	}
	broker, err := jetstream.NewCommandBroker(t.servers.nc, nil)
	if err != nil {
		return f, err
	}
	if f.commands, err = sinks.NewCommands(broker, nil); err != nil {
		return f, err
	}
	if err := f.commands.Open(ctx, fleetQueue); err != nil {
		return f, err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop, f.served = stop, make(chan error, 1)
	go func() {
		// One connection, so one command at a time.
		f.served <- f.commands.Serve(serving, fleetQueue, f.handle, &sinks.ServePolicy{Concurrency: 1, FirstDelay: time.Second})
	}()
	return f, nil
}

// command puts a command into the queue. It returns nil when it is stored.
func (f *fleet) command(ctx context.Context, train int) error {
	body, err := json.Marshal(addCarriage{Train: train, Seats: 4})
	if err != nil {
		return err
	}
	return f.commands.Send(ctx, sinks.Command{
		Queue: fleetQueue, Name: fleetCommand, Body: body,
		ID: fleetCommand + "-" + strconv.Itoa(train), // a repeated command is one command
	})
}

// handle carries out one command. Only when it has returned nil, the command
// is taken off the queue.
func (f *fleet) handle(ctx context.Context, r *sinks.Received) error {
	var c addCarriage
	if err := json.Unmarshal(r.Body, &c); err != nil {
		return sinks.Permanent(err)
	}
	if err := addSeats(ctx, f.conn, c); err != nil {
		f.trip.story.tell(byFleet, "cannot add a carriage, will try again: %v", err)
		return err
	}
	f.trip.story.tell(byFleet, "%s: %d new seats on %s, command carried out", jetstream.CommandSubject(r.Queue, r.Name), c.Seats, f.trip.trains[c.Train])
	return nil
}

func (f *fleet) close(ctx context.Context) error {
	var err error
	if f.served != nil {
		f.stop()
		err = <-f.served
	}
	if f.commands != nil {
		f.commands.Close()
	}
	if f.conn != nil {
		err = errors.Join(err, f.conn.Close(ctx))
	}
	return err
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
