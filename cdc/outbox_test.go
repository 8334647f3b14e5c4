package cdc_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

const createOutbox = "CREATE TABLE outbox (id serial PRIMARY KEY, aggregatetype text, aggregateid int, type text, payload jsonb, note text)"

func TestOutboxRowsAreMessages(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, createOutbox, "CREATE TABLE seats (id int PRIMARY KEY)",
		"INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('order', 7, 'asked', '{}')")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Tables: []string{"seats"}, Outbox: []cdc.Outbox{{Table: "public.outbox"}}}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO seats VALUES (1)",
		`INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('order', 7, 'paid', '{"by": "card"}')`,
		"INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('seat', 1, 'sold')",
		"DELETE FROM outbox", "INSERT INTO seats VALUES (2)", "COMMIT",
		"INSERT INTO outbox (aggregateid, type) VALUES (NULL, 'of nothing')",
		"UPDATE outbox SET type = 'changed'", "TRUNCATE outbox",
		"INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('order', 7, 'sent')",
		"INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('order', 7, 'closed')",
	)
	src.caughtUp()
	want := []string{
		`message _messages.order/7: null -> {"id":1,"aggregateid":7,"type":"asked","payload":{}}`,
		`create public.seats/1: null -> {"id":1}`,
		`message _messages.order/7: null -> {"id":2,"aggregateid":7,"type":"paid","payload":{"by": "card"}}`,
		`message _messages.seat/1: null -> {"id":3,"aggregateid":1,"type":"sold","payload":null}`,
		`create public.seats/2: null -> {"id":2}`,
		`message _messages._/%: null -> {"id":4,"aggregateid":null,"type":"of nothing","payload":null}`,
		`message _messages.order/7: null -> {"id":5,"aggregateid":7,"type":"sent","payload":null}`,
		`message _messages.order/7: null -> {"id":6,"aggregateid":7,"type":"closed","payload":null}`,
	}
	events := rec.Events()
	if diff := cmp.Diff(want, lines(events)); diff != "" {
		t.Fatalf("the events (-want +got):\n%s", diff)
	}
	if c := events[0].Cause; c != listeners.CauseSnapshot {
		t.Errorf("the message that was there before has cause %s, want snapshot", c)
	}
	// Deletes count: three messages and seats, and three rows that went.
	if i := events[4].Position.Index; i != 7 {
		t.Errorf("the last event of the transaction has index %d, want 7", i)
	}
}

// A subscription to the messages alone that asks for the current state gets what
// stands in the outbox.
func TestOutboxJoins(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, strings.ReplaceAll(createOutbox, "aggregatetype", `"about"`),
		"INSERT INTO outbox (about, aggregateid, type) VALUES ('order', 1, 'paid'), ('seat', 2, 'sold')")
	var main, rec listenertest.Recorder
	src := run(t, url, &cdc.Options{
		Snapshot: cdc.SnapshotNever,
		Outbox:   []cdc.Outbox{{Table: "outbox", AggregateType: "about"}},
	}, record(t, &main, nil))
	src.caughtUp()
	if _, err := src.Table("_messages.order").Subscribe("orders", &rec, &listeners.SubscribeOptions{Current: true}); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, waitLong, func() error {
		if len(rec.Events()) == 0 {
			return errors.New("no message")
		}
		return nil
	})
	exec(t, conn, "INSERT INTO outbox (about, aggregateid, type) VALUES ('seat', 3, 'sold'), ('order', 4, 'paid')")
	src.caughtUp()
	want := []string{
		`message _messages.order/1: null -> {"id":1,"aggregateid":1,"type":"paid","payload":null}`,
		`message _messages.order/4: null -> {"id":4,"aggregateid":4,"type":"paid","payload":null}`,
	}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("the events (-want +got):\n%s", diff)
	}
}

func TestOutboxIsCheckedBeforeAnythingIsCreated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		outbox cdc.Outbox
		tables []string
		want   string
	}{
		"no such table": {outbox: cdc.Outbox{Table: "outbux"}, want: "there is no table public.outbux, which is to be an outbox"},
		"no such table among others": {
			outbox: cdc.Outbox{Table: "outbux"}, tables: []string{"seats"},
			want: "no table matches public.outbux; did you mean public.outbox?",
		},
		"no such column": {
			outbox: cdc.Outbox{Table: "outbox", Payload: "body", Type: "kind"},
			want:   "the outbox public.outbox has no column body, kind, or does not publish it; it has id, aggregatetype, aggregateid, type, payload, note",
		},
		"not published": {outbox: cdc.Outbox{Table: "outbox"}, want: "does not cover the outbox public.outbox"},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			conn := pgtest.Connect(t, url)
			exec(t, conn, createOutbox, "CREATE TABLE seats (id int PRIMARY KEY)")
			opts := &cdc.Options{Tables: tc.tables, Outbox: []cdc.Outbox{tc.outbox}, Publication: "p"}
			if name == "not published" {
				exec(t, conn, "CREATE PUBLICATION p FOR TABLE seats")
			}
			src := run(t, url, opts, record(t, new(listenertest.Recorder), nil))
			err := src.ended()
			var setup *cdc.SetupError
			if !errors.As(err, &setup) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Run = %v, want a SetupError with %q", err, tc.want)
			}
			if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 0 {
				t.Errorf("%d slots were created", n)
			}
		})
	}
	_, err := cdc.New("postgres://app@localhost/shop", &cdc.Options{
		Messages: []string{"rowcall.x", ""}, Outbox: []cdc.Outbox{{Table: "public.*"}, {Table: "a"}, {Table: "public.a"}},
	})
	for _, want := range []string{`messages "rowcall.x"`, "an empty prefix", `outbox "public.*": name one table`, `outbox "public.a": it is there twice`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to say %q", err, want)
		}
	}
}
