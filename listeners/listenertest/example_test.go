package listenertest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A test subscribes a Recorder, does something, and waits for the events.
func ExampleRecorder() {
	feed := listeners.NewFeed(nil) // or any other source
	var rec listenertest.Recorder
	sub, err := feed.Subscribe("test", &rec, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	feed.Append(&listeners.Batch{
		Events: []listeners.Event{
			{Op: listeners.Create, Schema: seats, After: seat("1", "20")},
			{Op: listeners.Update, Schema: seats, Before: seat("1", "20"), After: seat("1", "25")},
		},
		Position: listeners.Position{Epoch: 1, Commit: 1}, First: true, Last: true,
	})

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	events, err := rec.WaitEvents(ctx, 2)
	if err != nil {
		fmt.Println(err)
	}
	for _, e := range events {
		fmt.Println(e)
	}
	// Output:
	// create public.seats/1: null -> {"id":1,"price":20}
	// update public.seats/1: {"id":1,"price":20} -> {"id":1,"price":25}
}
