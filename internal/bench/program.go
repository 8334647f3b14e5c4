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

// rowcall is timed as a whole process, from its start to its end, and its
// report has to say that it saw every row.
// The backlog is streamed, or drained by SQL functions.
func (b *bench) rowcall(to string, catchUp bool) program {
	name, slot, threshold := "rowcall run --to "+to+", streaming", "stream_"+to, "0"
	if catchUp {
		name, slot, threshold = "rowcall run --to "+to+", catch-up", "catch_up_"+to, "1MiB"
	}
	args := []string{
		"run", "--database-url", b.url(), "--slot", slot, "--publication", publication, "--state-dir", filepath.Join(b.dir, "state"),
		"--snapshot", "never", "--to", to, "--until-caught-up", "--catch-up-bytes", threshold,
	}
	if to == "nats" {
		name += " (embedded server)"
		args = append(args, "--data-dir", filepath.Join(b.dir, slot), "--nats-port", "42222")
	}
	return program{
		name: name,
		prepare: func(ctx context.Context) error {
			_, err := measure(ctx, name, b.binary, args...)
			return err
		},
		drain: func(ctx context.Context) (result, error) {
			report := filepath.Join(b.dir, slot+".json")
			r, err := measure(ctx, name, b.binary, append(args, "--report", report)...)
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
			if said.Events != b.rows {
				return r, fmt.Errorf("%d events for %d rows", said.Events, b.rows)
			}
			return r, nil
		},
	}
}
