package listeners_test

import (
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestFilterTxSeesTheTransactionOfEachBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var rec listenertest.Recorder
		subscribe(t, f, "s", &rec, &listeners.SubscribeOptions{
			Collections: []string{"public.seats"},
			Filter:      func(e *listeners.Event) bool { return e.Key().String() != "4" },
			FilterTx:    func(_ *listeners.Event, tx listeners.Tx) bool { return tx.ID%2 == 0 },
		}, nil)
		for id := range 6 {
			b := batch(uint64(id)+1, created(seats, id), created(trains, id))
			b.Tx.ID = uint64(id)
			f.Append(b)
		}
		wantHeard(t, &rec, "1:(s0), 3:(s2)")
	})
}
