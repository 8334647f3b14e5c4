package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// asProgram makes the test binary behave as the program, in the first process as in
// the second one, which inherits it.
const asProgram = "ROWCALL_TEST_TWO_PROCESSES"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	m.Run()
}

// Really two processes: the program starts itself again.
func TestTwoProcesses(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), asProgram+"=1")
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
