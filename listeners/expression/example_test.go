package expression_test

import (
	"context"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/expression"
)

func Example() {
	expensive, err := expression.Compile(`op == "create" and after.price > 30`)
	if err != nil {
		fmt.Println(err)
		return
	}
	feed := listeners.NewFeed(nil) // of a table or a region
	sub, err := feed.Subscribe("alerts", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for i := range b.Events {
			fmt.Println(b.Events[i].Key(), b.Events[i].After.Get("price"))
		}
		return nil
	}), &listeners.SubscribeOptions{Filter: expensive.Keep}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	feed.Append(&listeners.Batch{
		Kind: listeners.Changes, Position: created.Position, First: true, Last: true,
		Events: []listeners.Event{*updated, *created},
	})
	_ = sub.Wait(context.Background(), created.Position)

	_, err = expression.Compile(`op = "create"`)
	fmt.Println(err)
	// Output:
	// 9007199254740993 30.50
	// expression, line 1, column 4: unexpected token Operator("=")
	//   op = "create"
	//      ^
}
