package jetstream_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
)

// A measure is what N commands took.
type measure struct{ cpu, wall time.Duration }

func take(b *testing.B, do func()) measure {
	b.Helper()
	begun, used := time.Now(), cpu()
	do()
	return measure{cpu() - used, time.Since(begun)}
}

// compare runs both in turns, several times, and reports the ratio and the
// difference of the sums: only within one run do they mean anything.
func compare(b *testing.B, raw, ours func() measure) {
	b.Helper()
	const rounds = 5
	var r, o measure
	for range rounds {
		one := raw()
		r.cpu, r.wall = r.cpu+one.cpu, r.wall+one.wall
		one = ours()
		o.cpu, o.wall = o.cpu+one.cpu, o.wall+one.wall
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / rounds / float64(b.N) }
	b.ReportMetric(per(o.wall)*1000, "ns/op")
	b.ReportMetric(per(o.cpu), "cpu-us/op")
	b.ReportMetric(per(r.cpu), "raw-cpu-us/op")
	b.ReportMetric(per(o.cpu)-per(r.cpu), "overhead-us/op")
	b.ReportMetric(r.wall.Seconds()/o.wall.Seconds(), "x-raw-speed")
}

func benchCommands(n int) []sinks.Command {
	cmds := make([]sinks.Command, n)
	for i := range cmds {
		cmds[i] = sinks.Command{Queue: "fleet", Name: "add-carriage", ID: fmt.Sprint(i), Body: []byte(`{"train":7,"seats":4}`)}
	}
	return cmds
}

// benchQueue is an empty queue on a server of its own.
func benchQueue(b *testing.B) (*nats.Conn, *sinks.Commands) {
	b.Helper()
	nc := connect(b, natstest.Run(b))
	c := newCommands(b, nc, nil)
	if err := c.Open(b.Context(), "fleet"); err != nil {
		b.Fatal(err)
	}
	return nc, c
}

// Send, beside the least that storing the same messages with their ids takes.
func BenchmarkCommandsSend(b *testing.B) {
	cmds := benchCommands(b.N)
	compare(b, func() measure {
		nc, _ := benchQueue(b)
		js, err := natsjs.New(nc, natsjs.WithPublishAsyncMaxPending(4096))
		if err != nil {
			b.Fatal(err)
		}
		return take(b, func() {
			for i := range cmds {
				if _, err := js.PublishAsync("cmd.fleet.add-carriage", cmds[i].Body, natsjs.WithMsgID(cmds[i].ID)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
		})
	}, func() measure {
		_, c := benchQueue(b)
		return take(b, func() {
			if err := c.SendAll(b.Context(), cmds); err != nil {
				b.Fatal(err)
			}
		})
	})
}

// Serve, beside the least that fetching the same messages and acknowledging
// each with the server's confirmation takes, as many at the same time.
func BenchmarkCommandsServe(b *testing.B) {
	const concurrency = 256
	cmds := benchCommands(b.N)
	filled := func() (*nats.Conn, *sinks.Commands) {
		nc, c := benchQueue(b)
		if err := c.SendAll(b.Context(), cmds); err != nil {
			b.Fatal(err)
		}
		return nc, c
	}
	compare(b, func() measure {
		nc, _ := filled()
		js, err := natsjs.New(nc)
		if err != nil {
			b.Fatal(err)
		}
		consumer, err := js.CreateConsumer(b.Context(), "CMD_FLEET", natsjs.ConsumerConfig{Durable: "raw", AckPolicy: natsjs.AckExplicitPolicy, MaxAckPending: 100_000})
		if err != nil {
			b.Fatal(err)
		}
		return take(b, func() {
			var wg sync.WaitGroup
			slots := make(chan struct{}, concurrency)
			for done := 0; done < b.N; {
				batch, err := consumer.Fetch(min(concurrency, b.N-done))
				if err != nil {
					b.Fatal(err)
				}
				for m := range batch.Messages() {
					done++
					slots <- struct{}{}
					wg.Go(func() {
						defer func() { <-slots }()
						if err := m.DoubleAck(b.Context()); err != nil {
							b.Error(err)
						}
					})
				}
			}
			wg.Wait()
		})
	}, func() measure {
		_, c := filled()
		ctx, stop := context.WithCancel(b.Context())
		defer stop()
		var done atomic.Int64
		return take(b, func() {
			err := c.Serve(ctx, "fleet", func(context.Context, *sinks.Received) error {
				if done.Add(1) == int64(b.N) {
					stop()
				}
				return nil
			}, &sinks.ServePolicy{Concurrency: concurrency})
			if err != nil {
				b.Fatal(err)
			}
		})
	})
}
