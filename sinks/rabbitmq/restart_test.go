package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// More in work than RabbitMQ 3.10 puts back in order is a matter of the user's, so
// the log says so.
func TestTooMuchInWorkForRabbitMQ310IsSaid(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	version, _ := conn.Properties["version"].(string)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	for concurrency, want := range map[int]bool{32: false, 33: strings.HasPrefix(version, "3.10.")} {
		var log strings.Builder
		b, err := rabbitmq.NewCommandBroker(connector(t, s, new(wire)), &rabbitmq.CommandOptions{
			Prefix: prefix(t, s), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.OpenQueue(t.Context(), "fleet"); err != nil {
			t.Fatal(err)
		}
		c, err := b.Consume(t.Context(), "fleet", sinks.ConsumeOptions{Owner: "fleet-service", Lease: time.Minute, MaxAttempts: 1, Concurrency: concurrency})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if said := strings.Contains(log.String(), "RabbitMQ 3.10 may lose commands"); said != want {
			t.Errorf("concurrency %d on RabbitMQ %s: the log says so = %t, want %t:\n%s", concurrency, version, said, want, log.String())
		}
	}
}

// RabbitMQ 3.10 forgets in which order it put back what a lost channel had.
func TestDeadLettersOutliveALostReaderAndARestart(t *testing.T) {
	t.Parallel()
	rabbittest.Server(t) // or it skips
	s, err := rabbitserver.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := newRigOn(t, s, "rowcall.")
	const letters = 90
	for i := range letters {
		r.publish(t, r.broker.DeadQueue("fleet"), letter(i))
	}

	lost := newRigOn(t, s, "rowcall.")
	err = lost.broker.SweepDead(t.Context(), "fleet", func(*sinks.DeadCommand) bool {
		lost.wire.dead.Store(true)
		lost.wire.cut()
		return true
	}, func(context.Context, []sinks.DeadCommand) (int, error) { return 0, errors.New("must not go on") })
	if err == nil {
		t.Fatal("SweepDead without a connection = nil, want an error")
	}
	back := time.NewTimer(time.Minute)
	defer back.Stop()
	for len(r.letters(t)) != letters {
		select {
		case <-back.C:
			t.Fatal("the letters of a reader that was lost are not back after a minute")
		default:
		}
	}
	var want []string
	for i := range letters {
		if i%7 != 3 {
			want = append(want, fmt.Sprintf("m%03d", i))
		}
	}
	discard := func(d *sinks.DeadCommand) bool {
		var i int
		_, err := fmt.Sscanf(d.Ref, "m%d", &i)
		return err == nil && i%7 == 3
	}
	if n, err := r.commands.DiscardAllDead(t.Context(), "fleet", discard); err != nil || n != letters-len(want) {
		t.Fatalf("DiscardAllDead = %d, %v; want %d", n, err, letters-len(want))
	}

	if _, err := s.Ctl(t.Context(), "shutdown"); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range newRigOn(t, s, "rowcall.").letters(t) {
		got = append(got, d.Ref)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("dead letters after a restart (-want +got):\n%s", diff)
	}
}
