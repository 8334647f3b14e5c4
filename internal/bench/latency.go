package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/listeners"
)

const (
	latencyRate = 1000 // transactions a second
	latencyTime = 8 * time.Second
)

// latency measures from the commit time, as the server writes it, to a listener
// and, in turns, to a loop that receives and does nothing else.
func (b *bench) latency(ctx context.Context) error {
	if _, err := b.conn.Exec(ctx, "CREATE TABLE ticks (id bigserial PRIMARY KEY); CREATE PUBLICATION ticks FOR TABLE ticks"); err != nil {
		return err
	}
	readers := []struct {
		name string
		read func(ctx context.Context, seen func(time.Time), ready func()) error
	}{
		{"bare receive loop", b.receive},
		{"cdc listener", b.listen},
		{"bare receive loop", b.receive},
		{"cdc listener", b.listen},
		{"NATS subscriber of rowcall run", b.subscribe},
	}
	fmt.Fprintf(b.out, "\nCommit to listener at %d transactions a second\n\n| reader | transactions | p50 | p99 |\n|---|---|---|---|\n", latencyRate)
	for _, r := range readers {
		fmt.Fprintf(os.Stderr, "bench: latency of a %s\n", r.name)
		took, err := b.latencies(ctx, r.read)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		slices.Sort(took)
		fmt.Fprintf(b.out, "| %s | %d | %.0f µs | %.0f µs |\n", r.name, len(took),
			micros(took[len(took)/2]), micros(took[len(took)*99/100]))
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// latencies has a reader read while transactions come.
func (b *bench) latencies(ctx context.Context, read func(context.Context, func(time.Time), func()) error) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := errors.New("done")
	var took []time.Duration
	ready := make(chan struct{})
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		readErr = read(ctx, func(committed time.Time) { took = append(took, time.Since(committed)) }, sync.OnceFunc(func() { close(ready) }))
		cancel(readErr)
	})
	select {
	case <-ready:
	case <-ctx.Done():
	}
	tick := time.NewTicker(time.Second / latencyRate)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(latencyTime); err == nil && time.Now().Before(end) && ctx.Err() == nil; {
		<-tick.C
		_, err = b.conn.Exec(ctx, "INSERT INTO ticks DEFAULT VALUES")
	}
	cancel(done)
	wg.Wait()
	if errors.Is(readErr, done) {
		readErr = nil
	}
	return took, errors.Join(err, readErr)
}

func (b *bench) listen(ctx context.Context, seen func(time.Time), ready func()) (err error) {
	defer func() { // or the next one would begin with what came meanwhile
		err = errors.Join(err, cdc.DropSlot(context.WithoutCancel(ctx), b.url(), "listener", nil))
	}()
	src, err := cdc.New(b.url(), &cdc.Options{Slot: "listener", Publication: "ticks", Snapshot: cdc.SnapshotNever})
	if err != nil {
		return err
	}
	_, err = src.Subscribe("latency", listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
		if len(batch.Events) > 0 {
			seen(batch.Tx.Time)
		}
		return nil
	}), nil)
	if err != nil {
		return err
	}
	go func() {
		if src.CaughtUp(ctx) == nil {
			ready()
		}
	}()
	return src.Run(ctx)
}

// receive is what a program does at least that reads a slot with the usual
// libraries.
func (b *bench) receive(ctx context.Context, seen func(time.Time), ready func()) (err error) {
	conn, err := pgconn.Connect(ctx, b.url()+"?replication=database")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = pglogrepl.CreateReplicationSlot(ctx, conn, "bare", "pgoutput", pglogrepl.CreateReplicationSlotOptions{Temporary: true})
	if err != nil {
		return err
	}
	err = pglogrepl.StartReplication(ctx, conn, "bare", 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'ticks'"},
	})
	if err != nil {
		return err
	}
	ready()
	status := time.Now()
	var last pglogrepl.LSN
	for {
		if time.Since(status) > time.Second {
			if err := pglogrepl.SendStandbyStatusUpdate(ctx, conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: last}); err != nil {
				return err
			}
			status = time.Now()
		}
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		switch body := data.Data[25:]; body[0] {
		case 'B':
			seenAt := time.UnixMicro(int64(binary.BigEndian.Uint64(body[9:])) + 946684800_000_000)
			seen(seenAt)
		case 'C':
			last = pglogrepl.LSN(binary.BigEndian.Uint64(body[10:]))
		}
	}
}
