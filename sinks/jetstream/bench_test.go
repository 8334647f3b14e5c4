package jetstream_test

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// benchmarkBatch has 1,000 events of about 100 bytes.
func benchmarkBatch(commit uint64) *listeners.Batch { return transaction(commit, 1000) }

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perEvent reports what one event costs. The server is in this process, so its
// CPU time is in it.
func perEvent(b *testing.B, used time.Duration) {
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/event")
}

// BenchmarkFirehose stores one event per iteration, in transactions of 1,000.
func BenchmarkFirehose(b *testing.B) {
	for name, opts := range map[string]*jetstream.Options{
		"auto": nil, "async": {FastIngest: jetstream.FastIngestOff}, "fast": {FastIngest: jetstream.FastIngestAlways}, "msgid": {MsgID: true},
	} {
		b.Run(name, func(b *testing.B) {
			f := open(b, connect(b, natstest.Run(b)), opts)
			batches := make([]*listeners.Batch, 0, b.N/1000+1)
			for n := 0; n < b.N; n += 1000 {
				batches = append(batches, benchmarkBatch(uint64(len(batches)+1)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cpu()
			store(b, f, batches)
			perEvent(b, cpu()-before)
		})
	}
}

// BenchmarkPublishMsgAsync is the client library's own way, with the same
// subjects, headers and bodies.
func BenchmarkPublishMsgAsync(b *testing.B) {
	s := natstest.Run(b)
	nc := connect(b, s)
	open(b, nc, nil).Close()
	js, err := natsjs.New(nc, natsjs.WithPublishAsyncMaxPending(jetstream.DefaultMaxPending))
	if err != nil {
		b.Fatal(err)
	}
	encoder := sinks.NewEncoder(0)
	batches := make([]*listeners.Batch, 0, b.N/1000+1)
	for n := 0; n < b.N; n += 1000 {
		batches = append(batches, benchmarkBatch(uint64(len(batches)+1)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	seq := uint64(0)
	for _, batch := range batches {
		for i := range batch.Events {
			f := encoder.Encode(batch, i)
			m := &nats.Msg{Subject: f.Address, Data: f.Body, Header: nats.Header{
				"Nats-Expected-Stream": {"CDC_SHOP"}, "Nats-Expected-Last-Sequence": {strconv.FormatUint(seq, 10)},
				"ce-specversion": {"1.0"}, "ce-datacontenttype": {sinks.ContentType}, "ce-id": {f.ID}, "ce-source": {f.Source},
				"ce-type": {f.Type}, "ce-subject": {f.Subject}, "ce-partitionkey": {f.Subject}, "ce-time": {f.Time},
				"ce-sequence": {f.Sequence}, "ce-txid": {f.TxID},
			}}
			if f.TxEnd {
				m.Header.Set("ce-txend", "true")
			}
			if _, err := js.PublishMsgAsync(m, natsjs.WithRetryAttempts(0), natsjs.WithStallWait(time.Minute)); err != nil {
				b.Fatal(err)
			}
			seq++
		}
	}
	<-js.PublishAsyncComplete()
	perEvent(b, cpu()-before)
	b.StopTimer()
	stream, err := js.Stream(b.Context(), "CDC_SHOP")
	if err != nil {
		b.Fatal(err)
	}
	if got := stream.CachedInfo().State.LastSeq; got != seq {
		b.Fatal(fmt.Errorf("stored %d of %d", got, seq))
	}
}

// BenchmarkSource reads a stream of events into a listener that scans a column
// of each.
func BenchmarkSource(b *testing.B) {
	nc := connect(b, natstest.Run(b))
	f := open(b, nc, nil)
	const events = 100_000
	for commit := uint64(1); commit <= events/1000; commit++ {
		if err := feed(b.Context(), f, []*listeners.Batch{transaction(commit, 1000)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		s := source(b, nc, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
		n := 0
		l := listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
			for i := range batch.Events {
				var id int64
				if err := batch.Events[i].After.Get("id").Scan(&id); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		sinktest.Subscribe(b, s, l, nil)
		if err := s.Run(b.Context()); err != nil || n != events {
			b.Fatalf("Run = %v after %d events, want nil after %d", err, n, events)
		}
	}
	b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
