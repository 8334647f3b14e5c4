package listeners_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// Its fields name columns of the table public.seats.
type exampleSeat struct {
	ID    int64  `db:"id"`
	Name  string `db:"seat"`
	Price int    `db:"price"`
}

// Any source has a Subscribe method like that of [listeners.Source]. Here the
// batches come from a feed that the example fills itself.
func Example() {
	feed := listeners.NewFeed(nil)
	handled := make(chan struct{})
	sub, err := feed.Subscribe("repricer", listeners.Handlers[exampleSeat]{
		OnUpdate: func(_ context.Context, c listeners.Change[exampleSeat]) error {
			fmt.Printf("seat %s: %d -> %d\n", c.After.Name, c.Before.Price, c.After.Price)
			return nil
		},
		OnCommit: func(context.Context, listeners.Tx, listeners.Position) error {
			close(handled)
			return nil
		},
	}, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	feed.Append(&listeners.Batch{
		Events: []listeners.Event{{
			Op: listeners.Update, Schema: seats,
			Before: seat(1, "A1", 20, nil),
			After:  seat(1, "A1", 25, nil),
		}},
		Position: listeners.Position{Epoch: 1, Commit: 1},
		First:    true, Last: true,
	})
	<-handled
	// Output: seat A1: 20 -> 25
}

// Each function is called for what it is named after; those that are nil are
// not called.
func ExampleHandlers() {
	h := listeners.Handlers[exampleSeat]{
		OnCreate: func(_ context.Context, c listeners.Change[exampleSeat]) error {
			fmt.Println("new seat", c.Key, "for", c.After.Price)
			return nil
		},
		OnUpdate: func(_ context.Context, c listeners.Change[exampleSeat]) error {
			fmt.Println("seat", c.Key, "costs", c.After.Price, "and did not send", c.Missing)
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[exampleSeat]) error {
			fmt.Println("no seat", c.Before.ID, "any more; whole row known:", c.HasBefore)
			return nil
		},
		OnCommit: func(_ context.Context, tx listeners.Tx, _ listeners.Position) error {
			fmt.Println("end of transaction", tx.ID)
			return nil
		},
	}
	err := h.OnBatch(context.Background(), &listeners.Batch{
		Tx: listeners.Tx{ID: 7}, First: true, Last: true,
		Events: []listeners.Event{
			{Op: listeners.Create, Schema: seats, After: seat(1, "A1", 20, nil)},
			{Op: listeners.Update, Schema: seats, After: seat(1, unsent, 25, nil)},
			{Op: listeners.Delete, Schema: seats, OldKey: seat(1, unsent, unsent, unsent)},
		},
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// new seat 1 for 20
	// seat 1 costs 25 and did not send [seat]
	// no seat 1 any more; whole row known: false
	// end of transaction 7
}

// A source reserves room, which waits for slow listeners, and then appends.
func ExampleFeed() {
	feed := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1 << 20})
	defer feed.Close()

	var heard sync.WaitGroup
	heard.Add(3)
	sub, err := feed.Subscribe("printer", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		defer heard.Done()
		fmt.Println(b.Kind, b.Position.Commit, len(b.Events))
		return nil
	}), nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	for commit := range uint64(3) {
		if err := feed.Reserve(ctx); err != nil {
			fmt.Println(err)
			return
		}
		feed.Append(&listeners.Batch{
			Events:   []listeners.Event{{Op: listeners.Create, Schema: seats, After: seat(int(commit), "A1", 20, nil)}},
			Position: listeners.Position{Epoch: 1, Commit: commit + 1},
			First:    true, Last: true, Size: 100,
		})
	}
	heard.Wait()
	if err := sub.CloseWait(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("stored up to", sub.Stored().Commit)
	// Output:
	// changes 1 1
	// changes 2 1
	// changes 3 1
	// stored up to 3
}

// Who wrote something waits until a listener has heard of it.
func ExampleSubscription_Wait() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	total := 0
	sub, err := feed.Subscribe("total", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		total += len(b.Events)
		return nil
	}), nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	written := listeners.Position{Epoch: 1, Commit: 1}
	feed.Append(&listeners.Batch{
		Events:   []listeners.Event{{Op: listeners.Create, Schema: seats, After: seat(1, "A1", 20, nil)}},
		Position: written, First: true, Last: true,
	})
	if err := sub.Wait(context.Background(), written); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("heard of", total)
	// Output: heard of 1
}

// A display needs the latest price of each seat, and must not hold up sales.
func ExampleOverflow() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	busy, goOn := make(chan struct{}), make(chan struct{})
	sub, err := feed.Subscribe("display", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for _, e := range b.Events {
			fmt.Println("seat", e.Key(), "from", e.Before.Get("price"), "to", e.After.Get("price"))
		}
		if b.Position.Commit == 1 {
			close(busy)
			<-goOn
		}
		return nil
	}), &listeners.SubscribeOptions{Overflow: listeners.OverflowConflate, BacklogBytes: 1000}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	write := func(commit uint64) listeners.Position {
		p := listeners.Position{Epoch: 1, Commit: commit}
		feed.Append(&listeners.Batch{
			Events: []listeners.Event{{
				Op: listeners.Update, Position: p, Schema: seats,
				Before: seat(1, "A1", int(commit)-1, nil), After: seat(1, "A1", int(commit), nil),
			}},
			Position: p, First: true, Last: true, Size: 100,
		})
		return p
	}
	write(1)
	<-busy
	for commit := uint64(2); commit <= 11; commit++ { // 1000 bytes
		write(commit)
	}
	last := write(12)
	close(goOn)
	if err := sub.Wait(context.Background(), last); err != nil {
		fmt.Println(err)
	}
	// Output:
	// seat 1 from 0 to 1
	// seat 1 from 1 to 11
	// seat 1 from 11 to 12
}

// What is appended during a pause is heard after it.
func ExampleSubscription_Pause() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	sub, err := feed.Subscribe("printer", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		fmt.Println("batch", b.Position.Commit)
		return nil
	}), nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	sub.Pause() // to change its paper
	p := listeners.Position{Epoch: 1, Commit: 1}
	feed.Append(&listeners.Batch{Position: p, First: true, Last: true, Size: 10})
	fmt.Println("waiting:", sub.Lag().Batches)
	sub.Resume()
	if err := sub.Wait(context.Background(), p); err != nil {
		fmt.Println(err)
	}
	// Output:
	// waiting: 1
	// batch 1
}

// A filter leaves out what the listener has no use for.
func ExampleSubscribeOptions_filter() {
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	sub, err := feed.Subscribe("bargains", listeners.Handlers[exampleSeat]{
		OnCreate: func(_ context.Context, c listeners.Change[exampleSeat]) error {
			fmt.Println("seat", c.Key, "for", c.After.Price)
			return nil
		},
	}, &listeners.SubscribeOptions{Filter: func(e *listeners.Event) bool {
		var price int
		return e.After.Get("price").Scan(&price) == nil && price < 20
	}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	p := listeners.Position{Epoch: 1, Commit: 1}
	feed.Append(&listeners.Batch{
		Events: []listeners.Event{
			{Op: listeners.Create, Schema: seats, After: seat(1, "A1", 45, nil)},
			{Op: listeners.Create, Schema: seats, After: seat(2, "A2", 15, nil)},
		},
		Position: p, First: true, Last: true,
	})
	if err := sub.Wait(context.Background(), p); err != nil {
		fmt.Println(err)
	}
	// Output: seat 2 for 15
}

func ExamplePosition() {
	commit := listeners.Position{Epoch: 1, Commit: 0x16B374D848, Index: 2}
	text := commit.String()
	fmt.Println(text)

	back, err := listeners.ParsePosition(text)
	fmt.Println(back == commit, err)

	// As text they sort in the order of the events.
	later := listeners.Position{Epoch: 1, Commit: 0x16B374D900}
	texts := []string{later.String(), text}
	slices.Sort(texts)
	fmt.Println(texts[0] == text, commit.Compare(later))
	// Output:
	// 0000000000000001-00000016b374d848-00000002
	// true <nil>
	// true -1
}

func ExampleRecord_Scan() {
	var s struct {
		ID    int64   // takes the column "id"
		Name  string  `db:"seat"`
		Price *int    // may be NULL
		Class string  `db:"class,optional"` // the table has none yet
		Note  *string `db:"-"`
	}
	if err := seat(1, "A1", nil, "window").Scan(&s); err != nil {
		fmt.Println(err)
	}
	fmt.Println(s.ID, s.Name, s.Price)

	// Unchanged columns leave their fields as they are.
	if err := seat(1, unsent, 20, unsent).Scan(&s); err != nil {
		fmt.Println(err)
	}
	fmt.Println(s.ID, s.Name, *s.Price)
	// Output:
	// 1 A1 <nil>
	// 1 A1 20
}

// A pile writes its batches in one go.
type pile struct {
	stalled chan struct{} // never: this pile cannot fail

	mu     sync.Mutex
	taken  []listeners.Position
	stored listeners.Position
	writes []int // how many batches each
}

var _ listeners.Durable = (*pile)(nil)

func (p *pile) OnBatch(_ context.Context, b *listeners.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = append(p.taken, b.Position)
	return nil
}

func (p *pile) Flush(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.taken); n > 0 {
		p.writes = append(p.writes, n)
		p.stored, p.taken = p.taken[n-1], nil
	}
	return nil
}

func (p *pile) Stored() listeners.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored
}

func (p *pile) Stalled() <-chan struct{} { return p.stalled }

// What a Durable listener has taken is stored when it says so, at the latest
// when its feed is closed.
func ExampleDurable() {
	feed := listeners.NewFeed(nil)
	p := &pile{stalled: make(chan struct{})}
	sub, err := feed.Subscribe("pile", p, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	feed.Append(&listeners.Batch{Kind: listeners.Live, Position: listeners.Position{Epoch: 1, Commit: 1}, First: true, Last: true})
	<-sub.Live()
	fmt.Println("taken, not stored:", sub.Stored().IsZero())
	feed.Close()
	<-sub.Done()
	fmt.Println("stored:", sub.Stored().Commit, "written:", p.writes)
	// Output:
	// taken, not stored: true
	// stored: 1 written: [1]
}
