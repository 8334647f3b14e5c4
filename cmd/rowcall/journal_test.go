package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowcall/rowcall/internal/kafkatest"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A deadListener hangs up on everybody as long as it is dead.
type deadListener struct {
	net.Listener
	dead *atomic.Bool
}

// Accept implements [net.Listener].
func (l deadListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.dead.Load() {
			return c, err
		}
		_ = c.Close()
	}
}

// arrived returns an error until a database's topics hold something.
func arrived(ctx context.Context, brokers, database string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	topics, err := kafkatest.Topics(ctx, []string{brokers})
	if err != nil {
		return err
	}
	for _, topic := range topics {
		if !strings.HasPrefix(topic, sinks.DatabaseAddress(database)+".") {
			continue
		}
		if all, err := kafkatest.Records(ctx, []string{brokers}, topic); err != nil || len(all) > 0 {
			return err
		}
	}
	return errors.New("nothing arrives in Kafka")
}

// A storedEvent is an event as a broker holds it.
type storedEvent struct{ ID, Sequence, Body string }

// readTopics returns the events in all topics of a database, in the order of
// their positions, without resets. It fails the test if a partition is not in
// that order, or holds an event twice.
func readTopics(t *testing.T, brokers, database string) []storedEvent {
	t.Helper()
	topics, err := kafkatest.Topics(t.Context(), []string{brokers})
	if err != nil {
		t.Fatal(err)
	}
	var all []storedEvent
	last := make(map[string]string)
	for _, topic := range topics {
		if !strings.HasPrefix(topic, sinks.DatabaseAddress(database)+".") {
			continue
		}
		records, err := kafkatest.Records(t.Context(), []string{brokers}, topic)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			e := storedEvent{Body: string(r.Value)}
			for _, h := range r.Headers {
				switch h.Key {
				case "ce_id":
					e.ID = string(h.Value)
				case "ce_sequence":
					e.Sequence = string(h.Value)
				}
			}
			partition := fmt.Sprintf("%s/%d", r.Topic, r.Partition)
			if e.Sequence <= last[partition] {
				t.Errorf("%s holds %s behind %s", partition, e.Sequence, last[partition])
			}
			last[partition] = e.Sequence
			if !strings.HasPrefix(e.Body, `{"op":"reset"`) { // those are in every partition
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b storedEvent) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return all
}

func TestKafkaThatIsAwayStopsNeitherJetStreamNorTheSlotAndGetsEverythingOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	databaseURL := pgtest.Database(t)
	database := databaseOf(t, databaseURL)
	h := startHistory(t, databaseURL)
	server := natstest.Run(t)
	var dead atomic.Bool
	dead.Store(true)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return deadListener{l, &dead}, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	brokers := cluster.ListenAddrs()[0]
	args := []string{
		"--database-url", databaseURL, "--tables", publishedTables, "--state-dir", t.TempDir(),
		"--nats-url", server.URL(), "--to", "nats", "--to", "kafka://" + brokers,
	}

	// Kafka is dead for the whole load, and rowcall dies over that, too.
	pass := func(c *child) {
		t.Helper()
		c.passes(t, databaseURL)
	}
	c := startRun(t, args...)
	pass(c)
	c.kill(t)
	c = startRun(t, args...)
	pass(c)
	pgtest.Eventually(t, patience, func() error {
		if !strings.Contains(c.log.String(), "a destination is away; the journal keeps its events") {
			return fmt.Errorf("rowcall does not say that Kafka is away; it wrote:\n%s", c.log.String())
		}
		return nil
	})

	// It comes back while the load goes on, and rowcall dies once more.
	dead.Store(false)
	pgtest.Eventually(t, patience, func() error {
		if err := arrived(t.Context(), brokers, database); err != nil {
			return fmt.Errorf("%w; rowcall wrote:\n%s", err, c.log.String())
		}
		return nil
	})
	c.kill(t)
	c = startRun(t, args...)
	pass(c)
	h.end()
	c.kill(t)
	startRun(t, append(args, "--until-caught-up")...).finish(t)

	nc := natstest.Connect(t, server)
	h.verify(t, readStream(t, nc, database))
	var want []storedEvent
	for m, err := range jetstream.Read(t.Context(), nc, jetstream.StreamName(database), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !m.Reset && !m.Live {
			want = append(want, storedEvent{m.ID, m.Position.String(), string(m.Body)})
		}
	}
	if diff := gocmp.Diff(want, readTopics(t, brokers, database)); diff != "" {
		t.Errorf("the topics do not hold what the stream holds (-stream +topics):\n%.2000s", diff)
	}
}
