package kafka_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFirehose stores one event per iteration, in transactions of 1,000. The
// brokers are in this process and forget what they get, so they cost little, but
// not nothing.
func BenchmarkFirehose(b *testing.B) {
	for _, compression := range []string{"snappy", "none", "lz4"} {
		b.Run(fmt.Sprintf("compression=%s", compression), func(b *testing.B) {
			c := run(b, kfake.BlackholeProduce())
			f := open(b, c, &kafka.Options{Partitions: 16, Compression: compression})
			batches := make([]*listeners.Batch, 0, b.N/1000+1)
			for n := 0; n < b.N; n += 1000 {
				batches = append(batches, sinktest.Transaction(uint64(len(batches)+1), 1000))
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cpu()
			if err := sinktest.Feed(b.Context(), f, batches); err != nil {
				b.Fatal(err)
			}
			if err := f.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/event")
		})
	}
}
