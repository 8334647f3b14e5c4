package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Mode says how a server goes down.
type Mode int

const (
	// Fast ends all sessions, writes a checkpoint and exits.
	Fast Mode = iota

	// Immediate exits at once, as in a crash: the next start recovers from WAL.
	Immediate
)

// String returns the word that pg_ctl uses.
func (m Mode) String() string {
	switch m {
	case Fast:
		return "fast"
	case Immediate:
		return "immediate"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// signal as in "Shutting Down the Server" of the PostgreSQL documentation.
func (m Mode) signal() os.Signal {
	if m == Immediate {
		return syscall.SIGQUIT
	}
	return syscall.SIGINT
}

// halt needs mu.
func (s *Server) halt(ctx context.Context, mode Mode) error {
	if s.stopped {
		return ErrStopped
	}
	p := s.postmaster
	if p == nil {
		return nil
	}
	began := time.Now()
	if err := signal(p, mode.signal()); err != nil {
		return err
	}
	s.leaving = true
	select {
	case <-p.Exited:
	case <-ctx.Done():
		return fmt.Errorf("stop PostgreSQL (pid %d, %s): %w after %s; the end of its log:\n%s",
			p.Cmd.Process.Pid, mode, context.Cause(ctx), time.Since(began).Round(time.Millisecond), s.LogTail(logLinesInError))
	}
	s.postmaster = nil
	s.opts.Logger.DebugContext(ctx, "PostgreSQL is down", "pid", p.Cmd.Process.Pid, "mode", mode.String(), "took", time.Since(began))
	return nil
}

// kill takes the server down without mercy and waits for it. SIGQUIT goes first
// because the postmaster then takes its other processes along, which it does
// within five seconds.
func (s *Server) kill() error {
	p := s.postmaster
	if p == nil {
		return nil
	}
	s.postmaster = nil
	quit := signal(p, syscall.SIGQUIT)
	patience := time.NewTimer(6 * time.Second)
	defer patience.Stop()
	select {
	case <-p.Exited:
		return nil
	case <-patience.C:
	}
	if err := signal(p, os.Kill); err != nil {
		return errors.Join(quit, err)
	}
	<-p.Exited
	return nil
}
