package kafka

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A lineWriter hears lines of a log.
type lineWriter func(string)

func (w lineWriter) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// Brokers that are away are waited for, and the log says so again and again.
func TestBrokersThatAreAwayAreWaitedForAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	const want = 3
	said := 0
	l := &topicsLog{prefix: "cdc.shop.", sayEvery: time.Millisecond, log: slog.New(slog.NewTextHandler(lineWriter(func(line string) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "they are waited for") && strings.Contains(line, "cdc.shop") {
			said++
		}
	}), nil))}
	err := l.persist(t.Context(), "ask", func(context.Context) error {
		if said < want {
			return errors.New("nobody there")
		}
		return nil
	})
	if err != nil || said != want {
		t.Errorf("persist = %v with %d warnings, want nil and %d", err, said, want)
	}
}
