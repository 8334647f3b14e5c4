package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/sinks"
)

// A queue belongs to the service that carries out what is in it.
const (
	paymentQueue = "payment"
	chargeCard   = "charge-card"
	refundCard   = "refund-card"

	fleetQueue  = "fleet"
	reserveSeat = "reserve-seat"
)

// An order is the body of a command: the booking as it was.
type order struct {
	Passenger string `json:"key"`
	Train     int    `json:"train"`
	Card      string `json:"card"`
}

func orderOf(r *sinks.Received) (order, error) {
	var o order
	if err := json.Unmarshal(r.Body, &o); err != nil {
		return o, sinks.Permanent(fmt.Errorf("the body is no booking: %w", err)) // trying again would not help
	}
	return o, nil
}

// move says what has become of a booking. In a system of several processes each
// service would write a table of its own, and the booking would follow its events.
func move(ctx context.Context, bookings *grid.Region[string, Booking], passenger string, to State) error {
	_, err := bookings.Update(ctx, passenger, func(b Booking) (Booking, error) {
		b.State = to
		return b, nil
	})
	return err
}

// payment is the service that charges cards.
type payment struct {
	bookings *grid.Region[string, Booking]
	out      io.Writer
}

func (p *payment) handle(ctx context.Context, r *sinks.Received) error {
	o, err := orderOf(r)
	if err != nil {
		return err
	}
	switch r.Name {
	case chargeCard:
		if o.Card == "expired" {
			return move(ctx, p.bookings, o.Passenger, Declined) // an answer, not a failure
		}
		fmt.Fprintf(p.out, "payment: charged %s\n", o.Passenger)
		return move(ctx, p.bookings, o.Passenger, Paid)
	case refundCard:
		fmt.Fprintf(p.out, "payment: refunded %s\n", o.Passenger)
		return move(ctx, p.bookings, o.Passenger, Refunded)
	}
	return sinks.Permanent(fmt.Errorf("payment does not know how to %s", r.Name))
}

// fleet is the service that has the seats.
type fleet struct {
	bookings *grid.Region[string, Booking]
	out      io.Writer
	closed   atomic.Bool // the depot does not answer

	mu   sync.Mutex
	free map[int]int // seats, by train
}

func (f *fleet) handle(ctx context.Context, r *sinks.Received) error {
	o, err := orderOf(r)
	if err != nil {
		return err
	}
	if r.Name != reserveSeat {
		return sinks.Permanent(fmt.Errorf("fleet does not know how to %s", r.Name))
	}
	if f.closed.Load() {
		return errors.New("the depot does not answer") // tried again later
	}
	if !f.take(o.Train) {
		return move(ctx, f.bookings, o.Passenger, Full)
	}
	fmt.Fprintf(f.out, "fleet: a seat in train %d for %s\n", o.Train, o.Passenger)
	return move(ctx, f.bookings, o.Passenger, Booked)
}

func (f *fleet) take(train int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.free[train] == 0 {
		return false
	}
	f.free[train]--
	return true
}
