package kafka_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
)

// A topic that is deleted under a firehose, and perhaps made anew, does not go unnoticed.
func TestATopicThatIsDeletedUnderAFirehoseIsNamed(t *testing.T) {
	t.Parallel()
	cleanup := map[bool]string{true: "compact", false: "delete"}
	for name, tc := range map[string]struct {
		opts           kafka.Options
		compacts, anew bool
	}{
		"deleted":                        {},
		"made anew":                      {anew: true},
		"made anew, no transactions":     {anew: true, opts: kafka.Options{NoTransactions: true}},
		"of the latest state, deleted":   {compacts: true},
		"of the latest state, made anew": {compacts: true, anew: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			topic := "cdc.shop.public.notes"
			start := func() *sinks.Firehose { return open(t, c, &tc.opts) }
			if tc.compacts {
				topic = notesTopic
				start = func() *sinks.Firehose { return latest(t, c, tc.opts) }
			}
			f := start()
			store(t, f, []*listeners.Batch{transaction(1, create("a", "1"))})
			a := admin(t, c)
			if _, err := a.DeleteTopics(t.Context(), topic); err != nil {
				t.Fatal(err)
			}
			if tc.anew {
				if _, err := a.CreateTopic(t.Context(), partitions, 1, map[string]*string{"cleanup.policy": new(cleanup[tc.compacts])}, topic); err != nil {
					t.Fatal(err)
				}
			}
			err := f.OnBatch(t.Context(), transaction(2, create("b", "2")))
			if err == nil {
				err = f.Flush(t.Context())
			}
			wantTopicError(t, err, topic+": it is gone: somebody has deleted it")
		})
	}
}
