package jetstream_test

import (
	"context"
	"fmt"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A listener of a stream, and a region that mirrors it: what they hear and hold
// is what the other process's region does.
func ExampleNewSource() {
	natstest.Example(exampleSource)
	// Output:
	// the mirror holds 2 seats; 12A costs 40
	// create 12A
	// create 12B
	// update 12A
}

func exampleSource(ctx context.Context, url string) error {
	nc, err := jetstream.Connect(url, nil)
	if err != nil {
		return err
	}
	defer nc.Close()

	// One process writes a region and stores it in a stream.
	shop := grid.New("shop", nil)
	seats, err := grid.Open[string, int](shop, "seats", nil)
	if err != nil {
		return err
	}
	firehose, err := jetstream.NewRegion(nc, "shop", "seats", nil)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()
	stored, err := seats.Subscribe("firehose", firehose, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		return err
	}
	<-stored.Live()
	for _, number := range []string{"12A", "12B", "12A"} {
		if _, err := seats.Put(ctx, number, 40); err != nil {
			return err
		}
	}
	if err := stored.Wait(ctx, seats.Snapshot().Position()); err != nil {
		return err
	}

	// Another one reads all that the stream holds, and then ends.
	source, err := jetstream.NewSource(nc, jetstream.RegionStreamName("shop", "seats"), &sinks.SourceOptions{
		Start: sinks.Start{Oldest: true}, UntilTip: true,
	})
	if err != nil {
		return err
	}
	var heard []string
	note := func(_ context.Context, c listeners.Change[int]) error {
		heard = append(heard, c.Op.String()+" "+c.Key)
		return nil
	}
	if _, err := source.Subscribe("note", listeners.Handlers[int]{OnCreate: note, OnUpdate: note}, nil); err != nil {
		return err
	}
	local := grid.New("local", nil)
	mirror, err := grid.Mirror[string, int](local, "seats", source, nil)
	if err != nil {
		return err
	}
	if err := source.Run(ctx); err != nil {
		return err
	}
	price, _ := mirror.Get("12A")
	fmt.Printf("the mirror holds %d seats; 12A costs %d\n", mirror.Len(), price)
	for _, line := range heard {
		fmt.Println(line)
	}
	return shop.Close(ctx)
}
