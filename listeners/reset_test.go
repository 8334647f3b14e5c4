package listeners_test

import (
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A reset that names collections, and the rows after it, reach those who asked
// for one of them.
func TestResetOfSomeCollectionsConcernsOnlyThose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var all, seat, train listenertest.Recorder
		subscribe(t, f, "all", &all, nil, nil)
		subscribe(t, f, "seat", &seat, only("public.seats"), nil)
		subscribe(t, f, "train", &train, only("public.trains"), nil)
		reset := marker(listeners.Reset, 2)
		reset.Collections = []string{"public.trains", "public.prices"}
		for _, b := range []*listeners.Batch{
			batch(1, created(seats, 1)), reset, marker(listeners.Snapshot, 2, created(trains, 7)), marker(listeners.Live, 2),
			batch(3, created(seats, 2), created(trains, 8)),
			marker(listeners.Reset, 4), marker(listeners.Snapshot, 4), marker(listeners.Live, 4),
		} {
			f.Append(b)
		}
		again := "reset 4:(), snapshot 4:(), live 4:()"
		wantHeard(t, &all, "1:(s1), reset 2:(), snapshot 2:(t7), live 2:(), 3:(s2 t8), "+again)
		wantHeard(t, &seat, "1:(s1), live 2:(), 3:(s2), "+again)
		wantHeard(t, &train, "reset 2:(), snapshot 2:(t7), live 2:(), 3:(t8), "+again)
	})
}
