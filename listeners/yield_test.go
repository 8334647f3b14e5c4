package listeners_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

// A listener that waited has heard of a batch when Yield returns, if there is no
// other processor that could take either of the two away.
func TestYieldLetsTheListenerGoFirst(t *testing.T) {
	was := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(was)
	f := listeners.NewFeed(nil)
	defer f.Close()
	heard := 0
	begun := make(chan struct{})
	sub, err := f.Subscribe("s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		if heard++; heard == 1 {
			close(begun)
		}
		return nil
	}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Append(batch(1))
	<-begun
	const rounds = 200
	atOnce := 0
	for i := range rounds {
		last := uint64(i + 2)
		if err := sub.Wait(t.Context(), at(last-1)); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched() // the listener waits again
		f.Append(batch(last))
		f.Yield()
		if sub.Stored() == at(last) {
			atOnce++
		}
	}
	if atOnce < rounds/2 {
		t.Errorf("after %d of %d calls of Yield the listener had heard of the batch, want nearly all", atOnce, rounds)
	}
}
