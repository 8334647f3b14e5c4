package sharedtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Runner is what [testing.M] and the TestMain helpers of other packages share.
type Runner interface {
	// Run runs the tests and returns the exit code.
	Run() int
}

// A Server is what the tests of a binary share. Its methods may be called from
// several goroutines at once.
type Server[S any] struct {
	// Start starts it. Its context does not end with the test that comes first.
	Start func(context.Context) (S, error)
	// Stop stops it.
	Stop func(S) error
	// Package is the one whose Main stops it.
	Package string

	mu      sync.Mutex
	managed bool // Run will stop what Get starts
	running bool
	server  S
	err     error // why the first start failed; not tried again
}

// Wrap returns a Runner that runs m and then stops the server.
func (s *Server[S]) Wrap(m Runner) Runner { return runner(func() int { return s.run(m) }) }

type runner func() int

func (r runner) Run() int { return r() }

func (s *Server[S]) run(tests Runner) int {
	s.mu.Lock()
	s.managed = true
	s.mu.Unlock()

	code := tests.Run()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed = false
	if !s.running {
		return code
	}
	s.running = false
	if err := s.Stop(s.server); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", s.Package, err)
		code = max(code, 1)
	}
	return code
}

// Get returns the server, and starts it if need be. The test fails where that
// fails, or where nobody would stop it.
func (s *Server[S]) Get(t testing.TB) S {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.managed {
		t.Fatalf("nobody would stop the shared server: add `func TestMain(m *testing.M) { %s.Main(m) }` to this package's tests", s.Package)
	}
	if !s.running && s.err == nil {
		s.server, s.err = s.Start(context.WithoutCancel(t.Context()))
		s.running = s.err == nil
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.server
}
