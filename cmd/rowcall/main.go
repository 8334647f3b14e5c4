package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := untilSignal(context.Background())
	a := &app{stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv}
	code := a.main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// main runs one command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(a.stderr, "rowcall: %v\n", err)
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(a.stderr, "Run \"%s --help\" for what is possible.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailure
}
