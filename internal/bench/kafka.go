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

	"github.com/rowcall/rowcall/internal/kafkaserver"
)

// toKafka drains to a broker that is started before, and has no topics yet.
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
