package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/kafkaserver"
)

// toKafka drains to a broker that has run before, and has no topics of the
// backlog yet.
func (b *bench) toKafka(catchUp bool) program {
	name, slot, threshold := "rowcall run --to kafka, streaming", "stream_kafka", "0"
	if catchUp {
		name, slot, threshold = "rowcall run --to kafka, catch-up", "catch_up_kafka", "1MiB"
	}
	name += " (broker beside)"
	args := []string{"--slot", slot, "--publication", publication, "--catch-up-bytes", threshold}
	p := b.fromSlot(name, b.rows, append(args, "--to", "discard")...) // makes the slot
	p.drain = func(ctx context.Context) (result, error) {
		dir := filepath.Join(b.dir, slot)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return result{}, err
		}
		broker, err := kafkaserver.Start(ctx, &kafkaserver.Options{Libs: b.kafka, Dir: dir})
		if err != nil {
			return result{}, err
		}
		defer broker.Kill()
		if err := b.warmUp(ctx, broker, slot); err != nil {
			return result{}, fmt.Errorf("warm the broker up: %w", err)
		}
		before, err := cpuOf(broker.PID())
		if err != nil {
			return result{}, err
		}
		r, err := b.fromSlot(name, b.rows, append(args, "--to", broker.URL())...).drain(ctx)
		if err != nil {
			return r, err
		}
		after, err := cpuOf(broker.PID())
		r.broker = after - before
		return r, err
	}
	return p
}

// A JVM translates what it runs often: a broker that has just begun takes several
// times the CPU of one that has run for a while.
const (
	warmDatabase = "warm"
	warmRows     = 500_000
)

// prepareWarmUp makes a database with rows to warm brokers up with. It is made
// before the slots, which then need not read its log.
func (b *bench) prepareWarmUp(ctx context.Context) error {
	if b.kafka == "" {
		return nil
	}
	if _, err := b.conn.Exec(ctx, "CREATE DATABASE "+warmDatabase); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, b.server.URL(warmDatabase))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "CREATE TABLE orders ("+columns+")"); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "INSERT INTO orders "+orders, 1, min(b.rows, warmRows))
	return err
}

// warmUp stores those rows, in topics of their own.
func (b *bench) warmUp(ctx context.Context, broker *kafkaserver.Server, slot string) error {
	_, err := measure(ctx, "warm-up", b.binary, "run", "--database-url", b.server.URL(warmDatabase), "--slot", "warm_"+slot,
		"--state-dir", filepath.Join(b.dir, "warm_"+slot), "--snapshot", "only", "--to", broker.URL())
	return err
}

// cpuOf returns the CPU time of a process so far, user and system, 0 where there
// is no /proc.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	// Behind the name, which ends with the last parenthesis: utime and stime are
	// the 14th and 15th field of all, in hundredths of a second.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	var sum time.Duration
	for _, i := range []int{11, 12} {
		ticks, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum, nil
}
