package kafka_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// What the documentation says of history topics that are deleted while nobody runs: what they
// held is gone, the others are as they were, and the firehose goes on in new ones; events that the source
// sends again are stored again there, and nowhere else.
func TestHistoryTopicsThatAreDeletedBetweenRunsAreMadeAnew(t *testing.T) {
	t.Parallel()
	for name, topics := range map[string][]string{"one": {seatsTopic}, "all": {seatsTopic, "cdc.shop.public.notes"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			f := open(t, c, nil)
			before := []*listeners.Batch{sinktest.Transaction(1, 2), transaction(2, create("a", "1")), sinktest.Transaction(3, 1)}
			store(t, f, before)
			f.Close()
			if _, err := admin(t, c).DeleteTopics(t.Context(), topics...); err != nil {
				t.Fatal(err)
			}
			f = open(t, c, nil)
			after := []*listeners.Batch{transaction(4, create("b", "2")), sinktest.Transaction(5, 1)}
			want := slices.Concat(before[2:], after)
			store(t, f, want) // the source had not heard of the first of them
			if name == "one" {
				want = slices.Concat(before[1:2], want)
			}
			got, err := readAll(t, c, sinks.SourceOptions{Start: sinks.Start{Oldest: true}}, nil)
			if err != nil {
				t.Fatalf("Run: %v", err)
			}
			if diff := cmp.Diff(sinktest.Events(sinktest.Recorded(want...)), sinktest.Events(got)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}
