package kafka_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A sourceServer is a fake cluster with a firehose.
type sourceServer struct {
	c *cluster
	f *sinks.Firehose
}

func (s *sourceServer) Source(t testing.TB, opts *sinks.SourceOptions) *sinks.Source {
	return source(t, s.c, opts)
}

func (s *sourceServer) Store(t testing.TB, batches []*listeners.Batch) { store(t, s.f, batches) }

func TestSources(t *testing.T) {
	t.Parallel()
	sinktest.Sources(t, func(t testing.TB) sinktest.SourceServer {
		c := run(t)
		return &sourceServer{c: c, f: open(t, c, nil)}
	})
}
