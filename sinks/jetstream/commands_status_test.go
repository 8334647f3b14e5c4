package jetstream_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
)

// The server speaks to a pull request in messages without a body whose header Status
// has a number. A command may look like one.
func TestCommandWithAStatusHeaderArrives(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"100", "404", "409", "shipped"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			c := newCommands(t, connect(t, natstest.Run(t)), nil)
			want := map[string]string{"Status": status, "Description": "of a train"}
			if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage", Headers: want}); err != nil {
				t.Fatal(err)
			}
			got := make(chan map[string]string, 1)
			serveWhile(t, c, func(_ context.Context, r *sinks.Received) error {
				got <- r.Headers
				return nil
			}, nil, func() {
				eventually(t, "the command", func() bool { return len(got) == 1 })
			})
			if diff := cmp.Diff(want, <-got); diff != "" {
				t.Errorf("headers of the command (-want +got):\n%s", diff)
			}
		})
	}
}
