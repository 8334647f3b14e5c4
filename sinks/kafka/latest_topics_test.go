package kafka_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// A topic of the latest state that is deleted between two runs, and perhaps made anew, is
// noticed by each run until the state was told again.
func TestLatestStateNoticesThatItsTopicsAreGone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		anew   bool
		empty  bool
		topics []string
	}{
		"none":        {},
		"one":         {empty: true, topics: []string{notesTopic}},
		"one anew":    {empty: true, topics: []string{notesTopic}, anew: true},
		"all of them": {empty: true, topics: []string{notesTopic, "latest.shop.public.seats", kafka.LatestTopics("shop")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			first := latest(t, c, kafka.Options{})
			if !first.Empty() {
				t.Error("Empty = false without topics, want true")
			}
			two := transaction(1, create("a", "1"))
			seat := listeners.Event{Op: listeners.Create, Schema: listeners.NewSchema("shop", "public", "seats", two.Events[0].Schema.Columns), After: two.Events[0].After, Position: listeners.Position{Epoch: two.Position.Epoch, Commit: 1, Index: 1}}
			two.Events, two.Position = append(two.Events, seat), seat.Position
			store(t, first, []*listeners.Batch{two})
			first.Close()
			if len(tc.topics) > 0 {
				a := admin(t, c)
				if _, err := a.DeleteTopics(t.Context(), tc.topics...); err != nil {
					t.Fatal(err)
				}
				if tc.anew {
					if _, err := a.CreateTopic(t.Context(), partitions, 1, map[string]*string{"cleanup.policy": new("compact")}, tc.topics[0]); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range 2 { // a run that tells nothing changes nothing
				f := latest(t, c, kafka.Options{})
				if got := f.Empty(); got != tc.empty {
					t.Errorf("Empty in run %d = %t, want %t", i, got, tc.empty)
				}
				f.Close()
			}
			f := latest(t, c, kafka.Options{})
			again := transaction(3, create("a", "1"))
			reset := &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: listeners.Position{Epoch: again.Position.Epoch, Commit: 2}, First: true, Last: true}
			store(t, f, []*listeners.Batch{reset, again})
			f.Close()
			f = latest(t, c, kafka.Options{})
			if f.Empty() {
				t.Error("Empty = true after the state was told again, want false")
			}
			wantTable(t, c, "the table", map[string]string{"a": "a=1"})
		})
	}
}
