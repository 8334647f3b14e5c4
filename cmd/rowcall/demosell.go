package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// purchases are the bookings of the demo, in order: train 1 fills up.
var purchases = []struct {
	passenger string
	train     int
	seats     int
}{
	{"Ada", 1, 2},
	{"Edgar", 1, 2}, // half full
	{"Grace", 2, 3},
	{"Barbara", 1, 2},
	{"Jim", 1, 2}, // sold out: the fleet service adds a carriage
	{"Michael", 2, 2},
	{"Leslie", 1, 2}, // in the new carriage
}

// soldOutFor is how long a passenger waits for the new carriage.
const soldOutFor = time.Minute

// sell makes the purchases, spread over about d. Each waits until the listener
// has heard of the one before it, so that the story is the same on any machine.
func (t *trip) sell(ctx context.Context, d time.Duration) error {
	conn, err := pgx.Connect(ctx, t.servers.databaseURL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tick := time.NewTicker(d / time.Duration(len(purchases)+1))
	defer tick.Stop()
	for _, p := range purchases {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		since := time.Now()
		err := t.book(ctx, conn, p.passenger, p.train, p.seats)
		for errors.Is(err, pgx.ErrNoRows) && time.Since(since) < soldOutFor && ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			err = t.book(ctx, conn, p.passenger, p.train, p.seats)
		}
		if err == nil {
			err = t.heard(ctx)
		}
		if err != nil {
			return err
		}
	}
	select {
	case <-tick.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// heard waits until the listener of the region has handled what is committed.
func (t *trip) heard(ctx context.Context) error {
	if err := t.source.CaughtUp(ctx); err != nil {
		return err
	}
	return t.repricer.Wait(ctx, t.seats.Position())
}

// book sells n seats of a train to one passenger, in one transaction.
func (t *trip) book(ctx context.Context, conn *pgx.Conn, passenger string, train, n int) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var seats []string
		var paid string
		err := tx.QueryRow(ctx, `
			WITH chosen AS (
				SELECT id FROM seats WHERE train = $1 AND passenger IS NULL ORDER BY id LIMIT $2 FOR UPDATE
			), sold AS (
				UPDATE seats SET passenger = $3 FROM chosen WHERE seats.id = chosen.id RETURNING seats.number, seats.price
			)
			INSERT INTO bookings (train, passenger, seats, paid)
			SELECT $1, $3, array_agg(number ORDER BY number), sum(price) FROM sold HAVING count(*) > 0
			RETURNING seats, paid::text`, train, n, passenger).Scan(&seats, &paid)
		if err == nil {
			// Told before it is done, since others hear of it within a millisecond.
			t.story.tell(byPostgres, "COMMIT: %s buys %s on %s for %s", passenger, strings.Join(seats, " and "), t.trains[train], paid)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("book %d seats for %s: %w", n, passenger, err)
	}
	return nil
}
