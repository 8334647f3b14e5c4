package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A trip is the demo's application: everything between a commit and those who
// hear of it.
type trip struct {
	story   *story
	servers *servers
	conn    *pgx.Conn // of the repricer
	trains  map[int]string

	source   *cdc.Source
	firehose *listeners.Subscription
	grid     *grid.Grid
	seats    *grid.Region[int, seat]
	repricer *listeners.Subscription
	latency  latencies
	fleet    *fleet

	// Of the repricer's goroutine.
	sold   map[int]int // seats of a train that this transaction sold
	raised map[int]int // how often the prices of a train went up
}

// A seat is one row of public.seats.
type seat struct {
	ID        int
	Train     int
	Number    string
	Price     string // exact, as PostgreSQL writes a numeric
	Passenger *string
}

// newTrip connects everything and starts nothing but subscriptions. It returns
// what it began also on error. The caller closes it.
func newTrip(ctx context.Context, s *servers, tell *story) (t *trip, err error) {
	t = &trip{
		story: tell, servers: s, grid: grid.New("demo", nil),
		sold: make(map[int]int), raised: make(map[int]int),
	}
	if t.conn, err = pgx.Connect(ctx, s.databaseURL()); err != nil {
		return t, err
	}
	if t.trains, err = trainNames(ctx, t.conn); err != nil {
		return t, err
	}
	if t.fleet, err = newFleet(ctx, t); err != nil {
		return t, err
	}
	if err := t.subscribeNATS(); err != nil {
		return t, err
	}
	if t.source, err = cdc.New(s.databaseURL(), &cdc.Options{Tables: []string{"public.*"}, Slot: "rowcall_demo"}); err != nil {
		return t, err
	}
	firehose, err := jetstream.New(s.nc, t.source.Database(), nil)
	if err != nil {
		return t, err
	}
	if err := firehose.Open(ctx); err != nil {
		return t, err
	}
	if t.firehose, err = t.source.Subscribe("firehose", firehose, nil); err != nil {
		return t, err
	}
	if t.seats, err = grid.Mirror[int, seat](t.grid, "seats", t.source.Table("public.seats"), nil); err != nil {
		return t, err
	}
	t.repricer, err = t.seats.Subscribe("repricer", listeners.Handlers[seat]{
		OnLive:   t.onLive,
		OnUpdate: t.onUpdate,
		OnCreate: t.onCreate,
		OnCommit: t.onCommit,
	}, &listeners.SubscribeOptions{Current: true})
	return t, err
}

// subscribeNATS is a program in any language: it knows a subject, nothing else.
func (t *trip) subscribeNATS() error {
	snapshot := 0
	var once sync.Once
	_, err := t.servers.subscriber.Subscribe("cdc.demo.public.seats.>", func(m *nats.Msg) {
		if m.Header.Get("ce-type") == "rowcall.read.v1" {
			snapshot++
			return
		}
		once.Do(func() { t.story.tell(byNATS, "%d seats on cdc.demo.public.seats.read.*", snapshot) })
		t.story.tell(byNATS, "%-37s %s", m.Subject, natsText(m))
	})
	return err
}

// natsText shortens the body of a message for the story.
func natsText(m *nats.Msg) string {
	var body struct {
		After columns `json:"after"`
	}
	if err := json.Unmarshal(m.Data, &body); err != nil {
		return string(m.Data)
	}
	var parts []string
	for _, c := range body.After {
		parts = append(parts, c.name+"="+c.value)
	}
	return strings.Join(parts, " ")
}

func (t *trip) onLive(context.Context) error {
	t.story.tell(byRegion, "mirrors the %d rows of public.seats, and hears what changes", t.seats.Len())
	return nil
}

func (t *trip) onCreate(_ context.Context, c listeners.Change[seat]) error {
	t.raised[c.After.Train] = len(thresholds) // the new carriage keeps its price
	return nil
}

func (t *trip) onUpdate(_ context.Context, c listeners.Change[seat]) error {
	if c.Before.Passenger == nil && c.After.Passenger != nil {
		t.sold[c.After.Train]++
	}
	return nil
}

// onCommit is called once for each transaction, after its rows.
func (t *trip) onCommit(ctx context.Context, tx listeners.Tx, _ listeners.Position) error {
	t.latency.add(time.Since(tx.Time))
	for train, sold := range t.sold {
		delete(t.sold, train)
		if err := t.onSale(ctx, train, sold); err != nil {
			return err
		}
	}
	return nil
}

// thresholds are the shares of sold seats at which prices go up.
var thresholds = [...]float64{0.5, 0.75}

// onSale raises prices, or asks for another carriage.
func (t *trip) onSale(ctx context.Context, train, sold int) error {
	free, all := 0, 0
	for _, s := range t.seats.All() {
		if s.Train != train {
			continue
		}
		all++
		if s.Passenger == nil {
			free++
		}
	}
	t.story.tell(byRegion, "%d more sold on %s, %d of %d seats are free", sold, t.trains[train], free, all)
	if free == 0 {
		t.story.tell(byListener, "%s is sold out: command add-carriage to the fleet service", t.trains[train])
		return t.fleet.command(ctx, train)
	}
	step := t.raised[train]
	if step >= len(thresholds) || float64(all-free) < thresholds[step]*float64(all) {
		return nil
	}
	t.raised[train]++
	t.story.tell(byListener, "%s fills up: UPDATE, %d seats cost 20%% more", t.trains[train], free)
	_, err := t.conn.Exec(ctx, `UPDATE seats SET price = round(price * 1.2, 2) WHERE train = $1 AND passenger IS NULL`, train)
	if err != nil {
		return fmt.Errorf("reprice train %d: %w", train, err)
	}
	return nil
}

// close ends what newTrip began. The source has ended before.
func (t *trip) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if t.firehose != nil {
		t.firehose.Close()
	}
	err := t.grid.Close(ctx)
	if t.fleet != nil {
		err = errors.Join(err, t.fleet.close(ctx))
	}
	if t.conn != nil {
		err = errors.Join(err, t.conn.Close(ctx))
	}
	return err
}
