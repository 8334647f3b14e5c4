package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
)

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
