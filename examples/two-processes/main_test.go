package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Really two processes: the program is built, and starts itself again.
func TestTwoProcesses(t *testing.T) {
	program := filepath.Join(t.TempDir(), "two-processes")
	// To compile everything anew may take minutes.
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("two-processes: %v\n%s", err, complaints.String())
	}
	const want = `the mirror begins with 12A {Price:40 Sold:false}
the mirror begins with 12B {Price:40 Sold:false}
12A is sold
-- committed
12B costs 50, no longer 40
12C is for sale for 50
-- committed
12A is gone
-- committed
the mirror ends with 12B {Price:50 Sold:false}
the mirror ends with 12C {Price:50 Sold:false}
`
	if out.String() != want {
		t.Errorf("two-processes printed\n%s\nwant\n%s", out.String(), want)
	}
}
