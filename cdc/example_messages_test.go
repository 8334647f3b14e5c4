package cdc_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

// An application writes messages to an outbox, in the transaction that they are
// about, and says others with pg_logical_emit_message.
func ExampleOutbox() {
	src, err := cdc.New("postgres://app@localhost/shop", &cdc.Options{
		Outbox:   []cdc.Outbox{{Table: "public.outbox"}},
		Messages: []string{"audit"},
	})
	if err != nil {
		log.Fatal(err)
	}
	type tripMessage struct {
		Trip int64 `db:"aggregateid"`
		Type string
	}
	_, err = src.Table("_messages.trip").Subscribe("timetable", listeners.Handlers[tripMessage]{
		OnMessage: func(_ context.Context, c listeners.Change[tripMessage]) error {
			fmt.Println("trip", c.After.Trip, c.After.Type)
			return nil
		},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	type note struct{ Text *string }
	_, err = src.Table("_messages.audit").Subscribe("auditor", listeners.Handlers[note]{
		OnMessage: func(_ context.Context, c listeners.Change[note]) error {
			if c.After.Text != nil {
				fmt.Println(*c.After.Text)
			}
			return nil
		},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := src.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Another process asks the running source to read rows again.
func ExampleRequestBackfill() {
	ctx := context.Background()
	const url = "postgres://app@localhost/shop"
	r, err := cdc.RequestBackfill(ctx, url, &cdc.Backfill{Tables: []string{"public.seats"}, Where: "class = 'first'"})
	if err != nil {
		log.Fatal(err)
	}
	err = cdc.WaitBackfill(ctx, url, r, func(s cdc.BackfillState) { fmt.Println(r.ID, s) })
	if err != nil {
		log.Fatal(err)
	}
}

// The process that runs the source asks for itself.
func ExampleSource_Backfill() {
	var src *cdc.Source // that runs
	ctx := context.Background()
	if _, err := cdc.AddTables(ctx, "postgres://app@localhost/shop", src.Publication(), []string{"public.trips"}); err != nil {
		log.Fatal(err)
	}
	if err := src.Backfill(ctx, []string{"public.trips"}, ""); err != nil {
		log.Fatal(err)
	}
}
