package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rowcall/rowcall/listeners"
)

func exampleBatch(commit uint64, id int) *listeners.Batch {
	p := listeners.Position{Epoch: 1, Commit: commit}
	return &listeners.Batch{
		Events:   []listeners.Event{{Op: listeners.Create, Position: p, Schema: seats, After: seat(id, "A1", 20, nil)}},
		Position: p, First: true, Last: true, Size: 100,
	}
}

// What cannot be handled waits in a list, and the rest goes on.
func ExampleRetryPolicy() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	ctx := context.Background()
	broken, others := true, make(chan struct{})
	sub, err := feed.Subscribe("mailer", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
		if broken && b.Position.Commit == 1 {
			return errors.New("no such address")
		}
		fmt.Println("mailed", b.Position.Commit)
		if b.Position.Commit == 3 {
			close(others)
		}
		return nil
	}), &listeners.SubscribeOptions{Retry: &listeners.RetryPolicy{Attempts: 2, Park: true}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	feed.Append(exampleBatch(1, 7))
	feed.Append(exampleBatch(2, 7)) // the same seat: it waits behind the first
	feed.Append(exampleBatch(3, 8))
	<-others
	err = sub.Wait(ctx, listeners.Position{Epoch: 1, Commit: 3})
	if held, ok := errors.AsType[*listeners.ParkedError](err); ok {
		fmt.Println("parked", held.ID, held.Err)
	}
	for _, p := range sub.Parked() {
		fmt.Println(p.ID, "attempts", p.Attempts, "behind", p.Behind)
	}
	broken = false // the address is corrected; the batch of its seat follows
	if err := sub.RetryParked(ctx, 1); err != nil {
		fmt.Println(err)
	}
	if err := sub.Wait(ctx, listeners.Position{Epoch: 1, Commit: 3}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// mailed 3
	// parked 1 no such address
	// 1 attempts 2 behind 0
	// 2 attempts 0 behind 1
	// mailed 1
	// mailed 2
}

// Several batches are written at once.
func ExampleGroupPolicy() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	sub, err := feed.Subscribe("writer", listeners.GroupFunc(func(_ context.Context, batches []*listeners.Batch) error {
		fmt.Println("one statement for", len(batches), "transactions")
		return nil
	}), &listeners.SubscribeOptions{Group: &listeners.GroupPolicy{MaxEvents: 3, MaxWait: 1 << 40}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	for commit := range uint64(3) {
		feed.Append(exampleBatch(commit+1, 1))
	}
	if err := sub.Wait(context.Background(), listeners.Position{Epoch: 1, Commit: 3}); err != nil {
		fmt.Println(err)
	}
	// Output: one statement for 3 transactions
}

// Seats are handled by four goroutines, each seat by one of them.
func ExampleSubscribeOptions_workers() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	sub, err := feed.Subscribe("indexer", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		fmt.Println("seat", b.Events[0].Key())
		return nil
	}), &listeners.SubscribeOptions{Workers: 4}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	for commit := range uint64(3) {
		feed.Append(exampleBatch(commit+1, int(commit)+1))
	}
	if err := sub.Wait(context.Background(), listeners.Position{Epoch: 1, Commit: 3}); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// seat 1
	// seat 2
	// seat 3
}

// A subscription goes on where the last one of its name was.
func ExampleFilePositions() {
	dir, err := os.MkdirTemp("", "positions")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	feed := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 1 << 20})
	defer feed.Close()
	ctx := context.Background()
	listen := func(until uint64) {
		sub, err := feed.Subscribe("audit", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			fmt.Println("heard", b.Position.Commit)
			return nil
		}), &listeners.SubscribeOptions{Positions: listeners.NewFilePositions(dir)}, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		feed.Append(exampleBatch(until, 1))
		if err := sub.Wait(ctx, listeners.Position{Epoch: 1, Commit: until}); err != nil {
			fmt.Println(err)
		}
		if err := sub.CloseWait(ctx); err != nil {
			fmt.Println(err)
		}
	}
	listen(1)
	feed.Append(exampleBatch(2, 1)) // while nobody listens
	listen(3)
	// Output:
	// heard 1
	// heard 2
	// heard 3
}
