package grid_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

// changesOnly is a source that forgets to tell the present.
type changesOnly struct{ *table }

func (c changesOnly) Subscribe(name string, l listeners.Listener, _ *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	return c.table.Subscribe(name, l, nil)
}

// A source whose snapshot was interrupted sends the changes of what it had read
// and goes on with other tables.
func TestMirrorFollowsASnapshotThatIsTakenUpAgain(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)

	reset := src.snapshot()
	src.at.Commit++
	for _, b := range src.snapshot()[:2] { // it never becomes live
		src.feed.Append(b)
	}
	b := src.commit(src.event(listeners.Create, "", "", "2|two|b"))
	want := map[int64]item{1: {Name: "one", Text: "a"}, 2: {Name: "two", Text: "b"}}
	checkMirror(t, m, b.Position, want)

	src.at.Commit++
	others := *reset[0]
	others.Position, others.Collections = src.at, []string{"public.others"}
	src.feed.Append(&others)
	src.feed.Append(&listeners.Batch{Kind: listeners.Snapshot, Position: src.at, First: true, Last: true})
	src.feed.Append(&listeners.Batch{Kind: listeners.Live, Position: src.at, First: true, Last: true})
	b = src.commit(src.event(listeners.Create, "", "", "3|three|c"))
	want[3] = item{Name: "three", Text: "c"}
	checkMirror(t, m, b.Position, want)
}
