package jetstream_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A sourceServer is an embedded one with a firehose.
type sourceServer struct {
	nc *nats.Conn
	f  *sinks.Firehose
}

func (s *sourceServer) Source(t testing.TB, opts *sinks.SourceOptions) *sinks.Source {
	return source(t, s.nc, opts)
}

func (s *sourceServer) Store(t testing.TB, batches []*listeners.Batch) { store(t, s.f, batches) }

func TestSources(t *testing.T) {
	t.Parallel()
	sinktest.Sources(t, beside(func(t testing.TB) sinktest.SourceServer {
		nc := connect(t, natstest.Run(t))
		return &sourceServer{nc: nc, f: open(t, nc, nil)}
	}))
}
