package kafka_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestRecordsSayTheirCause(t *testing.T) {
	t.Parallel()
	c := run(t)
	b := sinktest.Transaction(1, 2)
	b.Events[1].Cause = listeners.CauseExpire
	store(t, open(t, c, nil), []*listeners.Batch{b})
	causes := make(map[string]int)
	for _, r := range records(t, c, seatsTopic) {
		cause := "none"
		for _, h := range r.Headers {
			if h.Key == "ce_cause" {
				cause = string(h.Value)
			}
		}
		causes[cause]++
	}
	if causes["none"] != 1 || causes["expire"] != 1 || len(causes) != 2 {
		t.Errorf("causes %v, want none for the first event and expire for the second", causes)
	}
}
