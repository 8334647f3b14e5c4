package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	cenats "github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// wantEvent compares an event of the SDK with one of the history. Text undoes
// what the SDK leaves to its users.
func wantEvent(t *testing.T, i int, e *event.Event, text func(string) string) {
	t.Helper()
	f := frames()[i]
	if err := e.Validate(); err != nil {
		t.Errorf("event %d: the SDK finds it invalid: %v", i, err)
	}
	extension := func(name string) string {
		switch v := e.Extensions()[name].(type) {
		case nil:
			return ""
		case bool:
			return fmt.Sprint(v)
		default:
			return text(fmt.Sprint(v))
		}
	}
	txend := ""
	if f.TxEnd {
		txend = "true"
	}
	for name, pair := range map[string][2]string{
		"specversion":     {e.SpecVersion(), "1.0"},
		"id":              {text(e.ID()), f.ID},
		"source":          {text(e.Source()), f.Source},
		"type":            {e.Type(), f.Type},
		"subject":         {text(e.Subject()), f.Subject},
		"datacontenttype": {e.DataContentType(), "application/json"},
		"time":            {e.Time().Format("2006-01-02T15:04:05.000000Z07:00"), f.Time},
		"partitionkey":    {extension("partitionkey"), f.Subject},
		"sequence":        {extension("sequence"), f.Sequence},
		"txid":            {extension("txid"), f.TxID},
		"txend":           {extension("txend"), txend},
	} {
		if pair[0] != pair[1] {
			t.Errorf("event %d: %s = %q, want %q", i, name, pair[0], pair[1])
		}
	}
	if !bytes.Equal(e.Data(), f.Body) || !json.Valid(e.Data()) {
		t.Errorf("event %d: data %s, want %s", i, e.Data(), f.Body)
	}
	var body struct {
		Op string `json:"op"`
	}
	if err := e.DataAs(&body); err != nil || !strings.Contains(e.Type(), "."+body.Op+".") {
		t.Errorf("event %d: DataAs gives op %q of %s, %v", i, body.Op, e.Type(), err)
	}
}

// unescaped undoes the percent-encoding of headers, which the SDK's reader of
// NATS leaves in place.
func unescaped(t *testing.T) func(string) string {
	return func(s string) string {
		t.Helper()
		plain, err := url.PathUnescape(s)
		if err != nil {
			t.Errorf("header value %q: %v", s, err)
		}
		return plain
	}
}

func asIs(s string) string { return s }

func TestCloudEventsSDKReadsJetStream(t *testing.T) {
	s, f := onJetStream(t)
	store(t, f)
	js, err := natstest.Connect(t, s).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	sub, err := js.SubscribeSync("cdc.shop.public.seats.>", nats.OrderedConsumer())
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	for i := range frames() {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		message := cenats.NewMessage(m)
		if got := message.ReadEncoding(); got != binding.EncodingBinary {
			t.Errorf("message %d: encoding %s, want binary", i, got)
		}
		e, err := binding.ToEvent(ctx, message)
		if err != nil {
			t.Fatalf("message %d is no event to the SDK: %v", i, err)
		}
		wantEvent(t, i, e, unescaped(t))
	}
}

// The SDK's own consumer, from a subscription on.
func TestCloudEventsSDKReceivesFromJetStream(t *testing.T) {
	s, f := onJetStream(t)
	store(t, f)
	c, err := cenats.NewConsumer(s.URL(), "CDC_SHOP", "cdc.shop.public.seats.>", nil, nil, []nats.SubOpt{nats.DeliverAll()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(within(t))
	opened := make(chan error, 1)
	go func() { opened <- c.OpenInbound(ctx) }()
	for i := range frames() {
		m, err := c.Receive(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		e, err := binding.ToEvent(ctx, m)
		if err != nil {
			t.Fatalf("message %d is no event to the SDK: %v", i, err)
		}
		wantEvent(t, i, e, unescaped(t))
		if err := m.Finish(nil); err != nil {
			t.Errorf("message %d: Finish = %v", i, err)
		}
	}
	stop()
	if err := <-opened; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("OpenInbound = %v", err)
	}
	if err := c.Close(context.WithoutCancel(ctx)); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func TestCloudEventsSDKReadsKafka(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	f, err := kafka.New("kafka://"+strings.Join(broker.ListenAddrs(), ","), "shop", &kafka.Options{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	store(t, f)

	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	consumer, err := sarama.NewConsumer(broker.ListenAddrs(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition("cdc.shop.public.seats", 0, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer partition.Close()
	ctx := within(t)
	for i := range frames() {
		var record *sarama.ConsumerMessage
		select {
		case record = <-partition.Messages():
		case <-ctx.Done():
			t.Fatalf("record %d: %v", i, ctx.Err())
		}
		message := kafka_sarama.NewMessageFromConsumerMessage(record)
		if got := message.ReadEncoding(); got != binding.EncodingBinary {
			t.Errorf("record %d: encoding %s, want binary", i, got)
		}
		e, err := binding.ToEvent(ctx, message)
		if err != nil {
			t.Fatalf("record %d is no event to the SDK: %v", i, err)
		}
		wantEvent(t, i, e, asIs)
	}
}
