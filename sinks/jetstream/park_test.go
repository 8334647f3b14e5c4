package jetstream_test

import (
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A body that is parked stays as long as its message, whatever the options of a
// later firehose say.
func TestParkedBodyStaysAsLongAsItsMessage(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	nc := connect(t, server)
	open(t, nc, &jetstream.Options{MaxAge: 2 * time.Hour}).Close()
	b := transaction(1, 1)
	b.Events[0].After = wide(1, 9<<20)
	store(t, open(t, nc, &jetstream.Options{MaxAge: time.Hour, TooLarge: sinks.TooLargePark}), []*listeners.Batch{b})
	s, err := natstest.JetStream(t, server).Stream(t.Context(), "OBJ_"+jetstream.ParkedName("CDC_SHOP"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config.MaxAge; got != 2*time.Hour {
		t.Errorf("bodies are kept for %s, want the stream's 2h", got)
	}
}
