package kafka_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A region of another process mirrors a table over compacted topics.
func ExampleNewLatestSource() {
	if err := exampleLatestSource(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// the mirror holds 2 seats
	// seat 2000 is 20C
}

func exampleLatestSource(ctx context.Context) error {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1)) // stands for yours
	if err != nil {
		return err
	}
	defer broker.Close()
	url := "kafka://" + strings.Join(broker.ListenAddrs(), ",")

	// One process keeps the latest state of a database's tables.
	latest, err := kafka.NewLatest(url, "shop", nil)
	if err != nil {
		return err
	}
	if err := latest.Open(ctx); err != nil {
		return err
	}
	defer latest.Close()
	for _, b := range []*listeners.Batch{sinktest.Transaction(1, 1), sinktest.Transaction(2, 1)} {
		if err := latest.OnBatch(ctx, b); err != nil { // as a subscription does
			return err
		}
	}
	if err := latest.Flush(ctx); err != nil {
		return err
	}

	// Another one mirrors a table.
	type seat struct {
		ID   int
		Seat string
	}
	source, err := kafka.NewLatestSource(url, "shop", nil)
	if err != nil {
		return err
	}
	here := grid.New("here", nil)
	mirror, err := grid.Mirror[int, seat](here, "seats", source, &grid.MirrorOptions[seat]{Collection: "public.seats"})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- source.Run(running) }() // it follows until its context ends
	if err := mirror.WaitReady(ctx); err != nil {
		stop()
		return err
	}
	fmt.Printf("the mirror holds %d seats\n", mirror.Len())
	one, _ := mirror.Get(2000)
	fmt.Printf("seat %d is %s\n", one.ID, one.Seat)
	stop()
	if err := <-ended; err != nil {
		return err
	}
	return here.Close(ctx)
}
