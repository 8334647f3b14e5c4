package sinks_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func TestAppendBody(t *testing.T) {
	for name, tc := range map[string]struct {
		event listeners.Event
		want  string
	}{
		"create": {
			listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 7, "12A", nil)},
			`{"op":"create","key":{"id":7},"before":null,"after":{"id":7,"seat":"12A","notes":null}}`,
		},
		"update with an unchanged column": {
			listeners.Event{Op: listeners.Update, Schema: seats, After: record(seats, 7, "12A", unsent)},
			`{"op":"update","key":{"id":7},"before":null,"after":{"id":7,"seat":"12A"},"unchanged":["notes"]}`,
		},
		"update with the old row": {
			listeners.Event{Op: listeners.Update, Schema: seats, Before: record(seats, 7, "12B", ""), After: record(seats, 7, "12A", "")},
			`{"op":"update","key":{"id":7},"before":{"id":7,"seat":"12B","notes":""},"after":{"id":7,"seat":"12A","notes":""}}`,
		},
		"update of the key": {
			listeners.Event{Op: listeners.Update, Schema: seats, OldKey: record(seats, 6, unsent, unsent), After: record(seats, 7, unsent, unsent)},
			`{"op":"update","key":{"id":7},"oldkey":{"id":6},"before":null,"after":{"id":7},"unchanged":["seat","notes"]}`,
		},
		"delete": {
			listeners.Event{Op: listeners.Delete, Schema: seats, OldKey: record(seats, 6, unsent, unsent)},
			`{"op":"delete","key":{"id":6},"before":null,"after":null}`,
		},
		"truncate": {
			listeners.Event{Op: listeners.Truncate, Schema: seats},
			`{"op":"truncate","key":{},"before":null,"after":null}`,
		},
		"read": {
			listeners.Event{Op: listeners.Read, Schema: keyless, After: record(keyless, "x\n")},
			`{"op":"read","key":{},"before":null,"after":{"line":"x\n"}}`,
		},
		"odd names": {
			listeners.Event{Op: listeners.Update, Schema: odd, After: record(odd, "ü", 2, unsent)},
			`{"op":"update","key":{"k":"ü","l":2},"before":null,"after":{"k":"ü","l":2},"unchanged":["quoted \"name\""]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(sinks.AppendBody(nil, &tc.event))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("AppendBody (-want +got):\n%s", diff)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("AppendBody = %s, which is not JSON", got)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	second := changes("shop", 0x1f,
		listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 7, "12A", nil)},
		listeners.Event{Op: listeners.Truncate, Schema: seats})
	strange := changes("Müller & Co", 1, listeners.Event{Op: listeners.Delete, Schema: odd, OldKey: record(odd, "x/y", "ü", unsent)})
	reset := &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: at(3, 0), First: true, Last: true}
	snapshot := &listeners.Batch{
		Kind: listeners.Snapshot, Source: "trains", Tx: listeners.Tx{Time: committed}, First: true,
		Events: []listeners.Event{{Op: listeners.Read, Schema: region, Position: at(2, 0), After: record(region, "a", true)}},
	}
	said := listeners.NewSchema("shop", "_messages", "orders.paid", []listeners.Column{{Name: "text"}})
	message := &listeners.Batch{
		Source: "shop", First: true, Last: true, Position: at(4, 1),
		Events: []listeners.Event{{Op: listeners.Message, Schema: said, Position: at(4, 1), After: record(said, "hello")}},
	}
	orders := listeners.NewSchema("shop", "_messages", "order", []listeners.Column{{Name: "aggregateid", Key: true}, {Name: "type"}})
	outbox := changes("shop", 5, listeners.Event{Op: listeners.Message, Schema: orders, After: record(orders, 7, "paid")})
	for name, tc := range map[string]struct {
		batch *listeners.Batch
		i     int
		want  sinks.Frame
	}{
		"first of two": {second, 0, sinks.Frame{
			Address: "cdc.shop.public.seats.create.001", Partition: 1,
			ID: "postgres/shop/0000000000000007-000000000000001f-00000000", Source: "postgres/shop",
			Type: "rowcall.create.v1", Subject: "public.seats/7", Time: "2026-11-23T09:30:00.123456Z",
			Sequence: "0000000000000007-000000000000001f-00000000", TxID: "4711",
		}},
		"last, a truncate": {second, 1, sinks.Frame{
			Address: "cdc.shop.public.seats.truncate.all", Partition: sinks.All,
			ID: "postgres/shop/0000000000000007-000000000000001f-00000001", Source: "postgres/shop",
			Type: "rowcall.truncate.v1", Subject: "public.seats", Time: "2026-11-23T09:30:00.123456Z",
			Sequence: "0000000000000007-000000000000001f-00000001", TxID: "4711", TxEnd: true,
		}},
		"message without a key": {message, 0, sinks.Frame{
			Address: "cdc.shop._messages.orders-2epaid.message.all", Partition: sinks.All,
			ID: "postgres/shop/0000000000000007-0000000000000004-00000001", Source: "postgres/shop",
			Type: "rowcall.message.v1", Subject: "_messages.orders.paid",
			Sequence: "0000000000000007-0000000000000004-00000001", TxEnd: true,
			Body: []byte(`{"op":"message","key":{},"before":null,"after":{"text":"hello"}}`),
		}},
		"message with a key": {outbox, 0, sinks.Frame{
			Address: "cdc.shop._messages.order.message.001", Partition: 1,
			ID: "postgres/shop/0000000000000007-0000000000000005-00000000", Source: "postgres/shop",
			Type: "rowcall.message.v1", Subject: "_messages.order/7", Time: "2026-11-23T09:30:00.123456Z",
			Sequence: "0000000000000007-0000000000000005-00000000", TxID: "4711", TxEnd: true,
			Body: []byte(`{"op":"message","key":{"aggregateid":7},"before":null,"after":{"aggregateid":7,"type":"paid"}}`),
		}},
		"odd names": {strange, 0, sinks.Frame{
			Address:   "cdc.M-c3-bcller-20-26-20Co.my-20schema.a-2fb-25.delete.007",
			Partition: 7,
			ID:        "postgres/M%C3%BCller%20&%20Co/0000000000000007-0000000000000001-00000000", Source: "postgres/M%C3%BCller%20&%20Co",
			Type: "rowcall.delete.v1", Subject: "my%20schema.a%2Fb%25/x%2Fy/%C3%BC", Time: "2026-11-23T09:30:00.123456Z",
			Sequence: "0000000000000007-0000000000000001-00000000", TxID: "4711", TxEnd: true,
		}},
		"reset": {reset, 0, sinks.Frame{
			Address: "cdc.shop._control.reset.reset.all", Partition: sinks.All,
			ID: "postgres/shop/0000000000000007-0000000000000003-00000000", Source: "postgres/shop",
			Type: "rowcall.reset.v1", Sequence: "0000000000000007-0000000000000003-00000000",
			Body: []byte(`{"op":"reset"}`),
		}},
		"part of a region's snapshot": {snapshot, 0, sinks.Frame{
			Address: "grid.trains.seats.read.006", Partition: 6,
			ID: "grid/trains/0000000000000007-0000000000000002-00000000", Source: "grid/trains",
			Type: "rowcall.read.v1", Subject: "seats/a", Time: "2026-11-23T09:30:00.123456Z",
			Sequence: "0000000000000007-0000000000000002-00000000",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.want.Body == nil {
				tc.want.Body = sinks.AppendBody(nil, &tc.batch.Events[tc.i])
			}
			c := sinks.NewEncoder(0)
			for range 2 { // what it remembers must not change anything
				c.Encode(second, 1)
				if diff := cmp.Diff(&tc.want, c.Encode(tc.batch, tc.i)); diff != "" {
					t.Errorf("Encode (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The two modes and the reader must agree.
func TestDecode(t *testing.T) {
	b := changes("shop", 0x1f,
		listeners.Event{Op: listeners.Update, Schema: seats, OldKey: record(seats, 6, unsent, unsent), After: record(seats, 7, nil, unsent)},
		listeners.Event{Op: listeners.Delete, Schema: odd, Before: record(odd, "x/y", "ü", 1)})
	reset := &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: at(3, 0), Last: true}
	live := &listeners.Batch{Kind: listeners.Live, Source: "shop", Position: at(3, 0), Last: true}
	if got := sinks.Len(b) + sinks.Len(reset) + sinks.Len(live); got != 3 {
		t.Fatalf("batches of two events, a reset and a live have %d messages, want 3", got)
	}
	for name, tc := range map[string]struct {
		batch *listeners.Batch
		i     int
		want  sinks.Message
	}{
		"update": {b, 0, sinks.Message{
			ID: "postgres/shop/0000000000000007-000000000000001f-00000000", Source: "postgres/shop",
			Op: listeners.Update, Collection: "public.seats", Position: at(0x1f, 0), Time: committed.Truncate(1000), TxID: 4711,
			Key: json.RawMessage(`{"id":7}`), OldKey: json.RawMessage(`{"id":6}`), After: json.RawMessage(`{"id":7,"seat":null}`),
			Unchanged: []string{"notes"},
		}},
		"delete": {b, 1, sinks.Message{
			ID: "postgres/M%C3%BCller%20&%20Co/0000000000000007-000000000000001f-00000001", Source: "postgres/M%C3%BCller%20&%20Co",
			Op: listeners.Delete, Collection: "my schema.a/b%", Position: at(0x1f, 1), Time: committed.Truncate(1000), TxID: 4711, TxEnd: true,
			Key: json.RawMessage(`{"k":"x/y","l":"ü"}`), Before: json.RawMessage(`{"k":"x/y","l":"ü","quoted \"name\"":1}`),
		}},
		"reset": {reset, 0, sinks.Message{
			ID: "postgres/shop/0000000000000007-0000000000000003-00000000", Source: "postgres/shop", Reset: true, Position: at(3, 0),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := sinks.NewEncoder(0).Encode(tc.batch, tc.i)
			txend := ""
			if f.TxEnd {
				txend = "true"
			}
			headers := map[string]string{
				"id": f.ID, "source": f.Source, "type": f.Type, "subject": f.Subject, "time": f.Time,
				"sequence": f.Sequence, "txid": f.TxID, "txend": txend,
			}
			got, err := sinks.Decode(func(name string) string { return headers[name] }, f.Body)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Decode(headers) (-want +got):\n%s", diff)
			}

			raw := sinks.AppendCloudEvent(nil, tc.batch, tc.i)
			var event map[string]any
			if err := json.Unmarshal(raw, &event); err != nil {
				t.Fatalf("AppendCloudEvent = %s: %v", raw, err)
			}
			var data struct {
				Data json.RawMessage `json:"data"`
			}
			if err := json.Unmarshal(raw, &data); err != nil {
				t.Fatal(err)
			}
			got, err = sinks.Decode(func(name string) string {
				switch v := event[name].(type) {
				case string:
					return v
				case bool:
					return map[bool]string{true: "true"}[v]
				}
				return ""
			}, data.Data)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Decode(structured) (-want +got):\n%s", diff)
			}
			for k, v := range headers {
				if k != "txend" && v != "" && event[k] != v {
					t.Errorf("AppendCloudEvent has %s %v, the encoder %q", k, event[k], v)
				}
			}
		})
	}
}

func TestDecodeRejects(t *testing.T) {
	const sequence = "0000000000000007-0000000000000003-00000000"
	for name, tc := range map[string]struct {
		headers map[string]string
		body    string
		want    string
	}{
		"no position":   {nil, `{"op":"read"}`, "sequence"},
		"bad time":      {map[string]string{"sequence": sequence, "time": "noon"}, `{"op":"read"}`, "time"},
		"bad txid":      {map[string]string{"sequence": sequence, "txid": "-1"}, `{"op":"read"}`, "txid"},
		"not JSON":      {map[string]string{"sequence": sequence}, `hello`, "body"},
		"no such op":    {map[string]string{"sequence": sequence}, `{"op":"upsert"}`, "upsert"},
		"bad subject":   {map[string]string{"sequence": sequence, "subject": "a%"}, `{"op":"read"}`, "subject"},
		"no op at all":  {map[string]string{"sequence": sequence}, `{}`, "operation"},
		"body is empty": {map[string]string{"sequence": sequence}, ``, "body"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sinks.Decode(func(name string) string { return tc.headers[name] }, []byte(tc.body))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Decode: %v, want an error about %q", err, tc.want)
			}
		})
	}
}

func TestEncodeAllocates(t *testing.T) {
	// One string holds all that differs between two events of a transaction.
	b := changes("shop", 1, listeners.Event{Op: listeners.Create, Schema: plainRows, After: listeners.NewRecord(plainRow{})})
	c := sinks.NewEncoder(0)
	if got := testing.AllocsPerRun(100, func() { c.Encode(b, 0) }); got > 1 {
		t.Errorf("Encode allocates %v times, want once at most", got)
	}
	body := make([]byte, 0, 1024)
	if got := testing.AllocsPerRun(100, func() { body = sinks.AppendBody(body[:0], &b.Events[0]) }); got > 0 {
		t.Errorf("AppendBody allocates %v times, want never", got)
	}
}

func BenchmarkEncode(b *testing.B) {
	batch := changes("shop", 1, listeners.Event{Op: listeners.Create, Schema: plainRows, After: listeners.NewRecord(plainRow{})})
	c := sinks.NewEncoder(0)
	b.ReportAllocs()
	for b.Loop() {
		c.Encode(batch, 0)
	}
}

var plainRows = listeners.NewSchema("shop", "public", "plain", []listeners.Column{{Name: "id", Key: true}, {Name: "seat"}})

// plainRow allocates nothing.
type plainRow struct{}

func (plainRow) Schema() *listeners.Schema           { return plainRows }
func (plainRow) State(int) listeners.State           { return listeners.Present }
func (plainRow) Text(int) []byte                     { return constantText }
func (plainRow) AppendJSON(dst []byte, _ int) []byte { return append(dst, "4711"...) }
func (plainRow) Scan(int, any) error                 { return nil }

var constantText = []byte("4711")
