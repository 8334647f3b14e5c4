package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/cdc"
)

const latencyPort = "42223"

// subscribe is a plain NATS subscriber of a rowcall that stores in the server
// within its process: the event is in the stream when it comes.
func (b *bench) subscribe(ctx context.Context, seen func(time.Time), ready func()) (err error) {
	const slot = "latency_nats"
	running, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(running, b.binary, b.runArgs([]string{ //nolint:gosec // our own binary
		"--slot", slot, "--publication", "ticks", "--snapshot", "never", "--data-dir", filepath.Join(b.dir, slot), "--nats-port", latencyPort,
	})...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		stop()
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // what matters it says on stderr
		close(ended)
	}()
	defer func() {
		stop()
		<-ended
		err = errors.Join(err, cdc.DropSlot(context.WithoutCancel(ctx), b.url(), slot, nil))
	}()

	conn, err := pgx.Connect(ctx, b.url())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for streaming := false; !streaming; {
		select {
		case <-tick.C:
		case <-ended:
			return fmt.Errorf("rowcall has ended\n%s", stderr.Bytes())
		}
		if err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_replication_slots WHERE slot_name = $1 AND active AND NOT temporary", slot).Scan(&streaming); err != nil {
			return err
		}
	}
	nc, err := nats.Connect("127.0.0.1:" + latencyPort)
	if err != nil {
		return err
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("cdc.>")
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	ready()
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		committed, err := time.Parse(time.RFC3339Nano, m.Header["ce-time"][0])
		if err != nil {
			return err
		}
		seen(committed)
	}
}
