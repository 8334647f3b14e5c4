//go:build unix

package pgserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/pgserver"
)

func itoa(n int) string { return strconv.Itoa(n) }

// orphanVariable turns the test binary into a process that starts a cluster,
// says where it is and waits to be killed.
const orphanVariable = "ROWCALL_TEST_ORPHAN"

func beParent() {
	s, err := pgserver.Start(context.Background(), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Threads that end must not be mistaken for the process.
	for range 50 {
		go runtime.LockOSThread()
	}
	fmt.Fprintln(os.Stdout, s.Dir())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestClusterDiesWithAKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a parent-death signal")
	}
	needsServer(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tmp := "/tmp"
	if os.Geteuid() != 0 {
		tmp = t.TempDir()
	}
	parent := exec.CommandContext(t.Context(), self)
	parent.Env = append(os.Environ(), orphanVariable+"=1", "TMPDIR="+tmp)
	parent.Stderr = os.Stderr
	in, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent said nothing: %v", err)
	}
	dir := strings.TrimSpace(line)
	pid := postmasterPID(t, dir)

	// It must not die early, when the parent's other threads end.
	if alive := waitGone(pid, 300*time.Millisecond); alive != nil {
		t.Logf("postmaster %d is up as it should be", pid)
	} else {
		t.Fatalf("postmaster %d died while its parent lived", pid)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // "signal: killed"
	if err := waitGone(pid, 20*time.Second); err != nil {
		t.Fatalf("after SIGKILL of its parent: %v", err)
	}

	t.Setenv("TMPDIR", tmp)
	start(t, nil)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(%s) after the next Start = %v, want not exist: litter must be swept", dir, err)
	}
}

func sweepSparesLivingClusters(t *testing.T, first *pgserver.Server) {
	start(t, nil)
	if got := query(t, first.URL("postgres"), "SELECT 'up'"); got != "up" {
		t.Errorf("first cluster after the second's start: %s", got)
	}
	if _, err := os.Stat(first.Dir()); err != nil {
		t.Error(err)
	}
}

func postmasterPID(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// waitGone returns nil as soon as there is no such process, or only a zombie.
func waitGone(pid int, timeout time.Duration) error {
	deadline := time.After(timeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return nil
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("process %d is still there after %s", pid, timeout)
		case <-tick.C:
		}
	}
}
