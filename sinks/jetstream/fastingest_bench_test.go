package jetstream_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// BenchmarkFastIngest is the server's fast ingest (2.14) with the firehose's
// messages, each with the sequence that it expects, and nothing else: no window
// of batches, no recovery. It is what the firehose could reach with it.
func BenchmarkFastIngest(b *testing.B) {
	s := natstest.Run(b)
	nc := connect(b, s)
	js, err := natsjs.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), natsjs.StreamConfig{
		Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}, AllowDirect: true, AllowBatchPublish: true, Duplicates: 100 * time.Millisecond,
	}); err != nil {
		b.Fatal(err)
	}
	const flow, outstanding = 500, 4096
	inbox := nc.NewInbox()
	acked := make(chan uint64, 1024)
	sub, err := nc.Subscribe(inbox+".>", func(m *nats.Msg) {
		var a struct {
			Type  string          `json:"type"`
			Seq   uint64          `json:"seq"`
			Count uint64          `json:"count"`
			Error json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &a); err != nil || a.Error != nil || a.Type != "" && a.Type != "ack" {
			b.Errorf("answer %s: %v", m.Data, err)
		}
		acked <- max(a.Seq, a.Count)
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	prefix := inbox + ".one." + strconv.Itoa(flow) + ".fail."
	encoder := sinks.NewEncoder(0)
	batches := make([]*listeners.Batch, 0, b.N/1000+1)
	for n := 0; n < b.N; n += 1000 {
		batches = append(batches, benchmarkBatch(uint64(len(batches)+1)))
	}
	header := nats.Header{"ce-specversion": {"1.0"}, "ce-datacontenttype": {sinks.ContentType}}
	set := func(name, value string) {
		if v, ok := header[name]; ok {
			v[0] = value
			return
		}
		header[name] = []string{value}
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	var seq, stored uint64
	for _, batch := range batches {
		for i := range batch.Events {
			f := encoder.Encode(batch, i)
			set("Nats-Expected-Last-Sequence", strconv.FormatUint(seq, 10))
			set("ce-id", f.ID)
			set("ce-source", f.Source)
			set("ce-type", f.Type)
			set("ce-subject", f.Subject)
			set("ce-partitionkey", f.Subject)
			set("ce-time", f.Time)
			set("ce-sequence", f.Sequence)
			set("ce-txid", f.TxID)
			seq++
			op := ".1.$FI"
			if seq == 1 {
				op = ".0.$FI"
			}
			if err := nc.PublishMsg(&nats.Msg{Subject: f.Address, Data: f.Body, Header: header, Reply: prefix + strconv.FormatUint(seq, 10) + op}); err != nil {
				b.Fatal(err)
			}
			for seq-stored > outstanding {
				stored = <-acked
			}
		}
	}
	seq++
	if err := nc.PublishMsg(&nats.Msg{Subject: "cdc.shop.end", Reply: prefix + strconv.FormatUint(seq, 10) + ".3.$FI"}); err != nil {
		b.Fatal(err)
	}
	for stored < seq-1 {
		stored = <-acked
	}
	perEvent(b, cpu()-before)
	b.StopTimer()
	stream, err := js.Stream(b.Context(), "CDC_SHOP")
	if err != nil {
		b.Fatal(err)
	}
	if got := stream.CachedInfo().State.LastSeq; got != seq-1 {
		b.Fatal(fmt.Errorf("stored %d of %d", got, seq-1))
	}
}
