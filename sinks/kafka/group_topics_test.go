package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// Nothing says that a transaction is complete, but it is handed on.
func TestGroupWithoutKafkaTransactions(t *testing.T) {
	t.Parallel()
	sinktest.GroupUnderLoad(t, groupServer(t, &kafka.Options{NoTransactions: true}), func() {})
}

// A group that began from now on reads a table that is new from its first row.
func TestGroupReadsNewTablesFromTheirBeginning(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := open(t, c, nil)
	store(t, f, []*listeners.Batch{sinktest.Transaction(1, 10)})
	client := groupClient(t, c)
	g, err := sinks.NewGroup(client.Broker, "repricer", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	heard, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		ended <- g.Run(ctx, func(p sinks.GroupPartition) listeners.Listener {
			return listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
				for i := range b.Events {
					heard <- fmt.Sprint(p.Collection, " ", b.Events[i].Schema.Name, " ", b.Events[i].Position.Commit)
				}
				return nil
			})
		})
	}()
	eventually(t, "it has the partitions that there are", func() bool { return len(g.Owned()) == partitions })
	trains := listeners.NewSchema(sinktest.Database, "public", "trains", sinktest.Seats.Columns)
	b := sinktest.Transaction(2, 1)
	b.Events[0].Schema = trains
	store(t, f, []*listeners.Batch{b})
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case got := <-heard:
		if want := "public.trains trains 2"; got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	case <-timeout.C:
		t.Error("the new table was not heard of")
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestGroupThatIsNotAllowed(t *testing.T) {
	t.Parallel()
	c := run(t)
	store(t, open(t, c, nil), []*listeners.Batch{sinktest.Transaction(1, 1)})
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: 100})
	g, err := sinks.NewGroup(groupClient(t, c).Broker, "repricer", &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err = g.Run(ctx, func(sinks.GroupPartition) listeners.Listener { return nil })
	if !errors.Is(err, kerr.GroupAuthorizationFailed) || !strings.Contains(err.Error(), "allow this user") {
		t.Errorf("Run = %v, want GroupAuthorizationFailed with a remedy", err)
	}
}

func TestNewGroupsRefuses(t *testing.T) {
	t.Parallel()
	_, err := kafka.NewGroups("kafka://user:secret@a b", "", &kafka.GroupsOptions{NewTopics: -1})
	for _, want := range []string{"NewTopics", "database", "URL"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewGroups = %v, want an error with %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the error contains the password: %v", err)
	}
}
