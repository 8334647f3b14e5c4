package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A program reads the backlog.
type program struct {
	name    string
	prepare func(context.Context) error // creates its slot before the backlog exists
	drain   func(context.Context) (result, error)
}

// A result is what one program needed for the whole backlog.
type result struct {
	name      string
	reference bool // pg_recvlogical
	elapsed   time.Duration
	cpu       time.Duration // of the process, user and system
	rss       int64         // bytes, at its highest
	broker    time.Duration // CPU of a broker in a process of its own meanwhile
}

func (r result) rate(rows int) float64 { return float64(rows) / r.elapsed.Seconds() }

// measure runs a command to its end.
func measure(ctx context.Context, name, path string, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	r := result{name: name, elapsed: time.Since(start)}
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = usage.Maxrss << 10
	}
	return r, nil
}

func (b *bench) recvlogical(slot string) program {
	const name = "pg_recvlogical to /dev/null"
	return program{
		name: name,
		prepare: func(ctx context.Context) error {
			_, err := b.conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
			return err
		},
		drain: func(ctx context.Context) (result, error) {
			var end string
			if err := b.conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&end); err != nil {
				return result{}, err
			}
			r, err := measure(ctx, name, filepath.Join(b.server.BinDir(), "pg_recvlogical"), "--dbname", b.url(), "--slot", slot,
				"--start", "--file", os.DevNull, "--option", "proto_version=1", "--option", "publication_names="+publication,
				"--endpos", end, "--no-loop")
			r.reference = true
			return r, err
		},
	}
}

// rowcall drains to a destination. The backlog is streamed, or read by SQL
// functions.
func (b *bench) rowcall(to string, catchUp bool) program {
	name, slot, threshold := "rowcall run --to "+to+", streaming", "stream_"+to, "0"
	if catchUp {
		name, slot, threshold = "rowcall run --to "+to+", catch-up", "catch_up_"+to, "1MiB"
	}
	args := []string{"--slot", slot, "--publication", publication, "--to", to, "--catch-up-bytes", threshold}
	if to == "nats" {
		name += " (embedded server)"
		args = append(args, "--data-dir", filepath.Join(b.dir, slot), "--nats-port", "42222")
	}
	return b.fromSlot(name, b.rows, args...)
}

// fromSlot reads a slot that its preparation creates.
func (b *bench) fromSlot(name string, rows int, args ...string) program {
	args = append([]string{"--snapshot", "never", "--until-caught-up"}, args...)
	p := b.once(name, rows, args...)
	p.prepare = func(ctx context.Context) error {
		_, err := measure(ctx, name, b.binary, b.runArgs(args)...)
		return err
	}
	return p
}

func (b *bench) runArgs(more []string) []string {
	return append([]string{"run", "--database-url", b.url(), "--state-dir", filepath.Join(b.dir, "state")}, more...)
}

// once is timed as a whole process, from its start to its end, and its report
// has to say that it saw every row.
func (b *bench) once(name string, rows int, args ...string) program {
	return program{name: name, drain: func(ctx context.Context) (result, error) {
		report := filepath.Join(b.dir, "report.json")
		r, err := measure(ctx, name, b.binary, append(b.runArgs(args), "--report", report)...)
		if err != nil {
			return r, err
		}
		text, err := os.ReadFile(report)
		if err != nil {
			return r, err
		}
		var said struct{ Events int }
		if err := json.Unmarshal(text, &said); err != nil {
			return r, err
		}
		if said.Events != rows {
			return r, fmt.Errorf("%d events for %d rows", said.Events, rows)
		}
		return r, nil
	}}
}

// measureAll runs programs one after the other.
func measureAll(ctx context.Context, programs []program) ([]result, error) {
	var results []result
	for _, p := range programs {
		fmt.Fprintf(os.Stderr, "bench: %s\n", p.name)
		r, err := p.drain(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		results = append(results, r)
	}
	return results, nil
}
