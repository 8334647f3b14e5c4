package jetstream_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A bucket in which one key changes all the time is one large hole. To look a
// position up in it takes no question for each sequence that is gone.
func TestSourceFindsAPositionAcrossAHole(t *testing.T) {
	t.Parallel()
	const changes = 3000
	nc := connect(t, natstest.Run(t))
	f := openLatest(t, nc)
	batches := []*listeners.Batch{transaction(1, 1)}
	for commit := range uint64(changes) {
		batches = append(batches, change1(commit+2, listeners.Update, 7, 7))
	}
	store(t, f, batches)
	stream := jetstream.LatestStream(jetstream.LatestName("shop"))
	asked, err := nc.SubscribeSync("$JS.API.DIRECT.GET." + stream + ".>")
	if err != nil {
		t.Fatal(err)
	}
	byNumber, err := nc.SubscribeSync("$JS.API.DIRECT.GET." + stream)
	if err != nil {
		t.Fatal(err)
	}
	first := at(1, 0)
	first.Index = 1 // in the bucket
	s, err := jetstream.NewSource(nc, stream, &sinks.SourceOptions{Start: sinks.Start{After: first}, UntilTip: true})
	if err != nil {
		t.Fatal(err)
	}
	r := new(listenertest.Recorder)
	sinktest.Subscribe(t, s, r, nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sinktest.Events(r.Batches()); len(got) != 1 {
		t.Errorf("the source told %q, want the last change alone", got)
	}
	if n := count(t, asked, nc) + count(t, byNumber, nc); n == 0 || n > changes/10 {
		t.Errorf("the source has asked for %d messages to find its place among %d sequences", n, changes+1)
	}
}

// A search that takes many questions over a slow line comes to its end.
func TestSourceSearchesOverASlowLine(t *testing.T) {
	if testing.Short() {
		t.Skip("the line is slow")
	}
	t.Parallel()
	const last, delay = 1 << 16, 350 * time.Millisecond                   // 16 questions take more than five seconds
	nc, err := nats.Connect(bareServer(t, &server.Options{}).ClientURL()) // the test answers for JetStream
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	answer := func(subject string, after time.Duration, with func(*nats.Msg) *nats.Msg) {
		sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
			time.AfterFunc(after, func() { _ = m.RespondMsg(with(m)) })
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sub.Unsubscribe() })
	}
	answer("$JS.API.STREAM.INFO.CDC_SHOP", 0, func(*nats.Msg) *nats.Msg {
		return &nats.Msg{Data: fmt.Appendf(nil,
			`{"config":{"name":"CDC_SHOP","num_replicas":1,"allow_direct":true},"created":"2026-01-01T00:00:00Z","state":{"messages":%d,"first_seq":1,"last_seq":%d}}`, last, last)}
	})
	answer("$JS.API.CONSUMER.CREATE.CDC_SHOP.>", 0, func(*nats.Msg) *nats.Msg {
		return &nats.Msg{Data: []byte(`{"stream_name":"CDC_SHOP","name":"c","config":{"ack_policy":"none"}}`)}
	})
	answer("$JS.API.DIRECT.GET.CDC_SHOP", delay, func(m *nats.Msg) *nats.Msg {
		_, rest, _ := strings.Cut(string(m.Data), `"seq":`)
		digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		seq, err := strconv.ParseUint(rest[:max(digits, 0)], 10, 64)
		if err != nil {
			t.Errorf("asked for %q: %v", m.Data, err)
		}
		return &nats.Msg{Header: nats.Header{
			"Nats-Stream": {"CDC_SHOP"}, "Nats-Subject": {"cdc.shop.public.seats.create.001"},
			"Nats-Sequence": {strconv.FormatUint(seq, 10)}, "Nats-Time-Stamp": {"2026-01-01T00:00:00Z"},
			"ce-sequence": {at(seq, 0).String()}, "ce-txend": {"true"},
		}, Data: []byte("{}")}
	})
	s := source(t, nc, &sinks.SourceOptions{Start: sinks.Start{After: at(last, 0)}, UntilTip: true})
	r := new(listenertest.Recorder)
	sinktest.Subscribe(t, s, r, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	timeout := time.NewTimer(2 * time.Minute)
	defer timeout.Stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("Run: %v", err)
		}
	case <-timeout.C:
		t.Fatal("the source has not found its place within two minutes")
	}
	if got := r.Batches(); len(got) != 1 || got[0].Kind != listeners.Live {
		t.Errorf("batches = %v, want Live alone", sinktest.Told(got))
	}
}
