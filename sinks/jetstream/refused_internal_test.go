package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
)

// A limit of consumers that is full is waited for, since it may be full of those that
// this reader has left behind; but not for ever.
func TestSourceSaysThatThereAreTooManyConsumers(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	js := natstest.JetStream(t, s)
	stream, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}, MaxConsumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	other, err := stream.CreateConsumer(t.Context(), natsjs.ConsumerConfig{Durable: "other", AckPolicy: natsjs.AckNonePolicy})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "cdc.shop.hello", nil); err != nil {
		t.Fatal(err)
	}
	read := func(patience time.Duration) ([]sinks.LogMessage, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l := &streamLog{nc: natstest.Connect(t, s), js: js, stream: "CDC_SHOP", log: slog.New(slog.DiscardHandler)}
		c, _, err := l.cursor(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.next, c.full = 1, patience
		return c.Next(ctx)
	}
	_, err = read(time.Nanosecond)
	if wrong, ok := errors.AsType[*sinks.PlaceError](err); !ok || !strings.Contains(wrong.Reason, "max_consumers") {
		t.Errorf("Next with all consumers taken = %v, want a PlaceError that names max_consumers", err)
	}
	removed := make(chan error, 1)
	timer := time.AfterFunc(200*time.Millisecond, func() { removed <- stream.DeleteConsumer(t.Context(), other.CachedInfo().Name) })
	defer timer.Stop()
	messages, err := read(time.Minute)
	if err != nil || len(messages) != 1 {
		t.Errorf("Next while a consumer is removed = %d messages, %v; want 1", len(messages), err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
}

func TestRefusalIsDecidedByTheCode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err   error
		final bool
	}{
		"no consumer more":         {&natsjs.APIError{Code: 400, ErrorCode: 10026}, true},
		"no stream more":           {&natsjs.APIError{Code: 400, ErrorCode: 10027}, true},
		"a consumer of a queue":    {&natsjs.APIError{Code: 400, ErrorCode: 10084}, true},
		"resources of the account": {&natsjs.APIError{Code: 400, ErrorCode: 10002}, false},
		"no peers":                 {&natsjs.APIError{Code: 400, ErrorCode: 10005}, false},
		"another was faster":       {&natsjs.APIError{Code: 400, ErrorCode: 10071}, false},
		"JetStream is not ready":   {&natsjs.APIError{Code: 503, ErrorCode: 10008}, false},
		"the store failed":         {&natsjs.APIError{Code: 500, ErrorCode: 10047}, false},
		"no answer":                {context.DeadlineExceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refusal(tc.err); (got != "") != tc.final {
				t.Errorf("refusal(%v) = %q, want one: %t", tc.err, got, tc.final)
			}
		})
	}
}
