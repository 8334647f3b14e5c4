package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// logger hands what the NATS server says to slog, and keeps its last words.
type logger struct {
	to    *slog.Logger
	fatal atomic.Pointer[string]
}

func (l *logger) say(level slog.Level, format string, args []any) {
	ctx := context.Background() // the server's logger interface carries none
	if !l.to.Enabled(ctx, level) {
		return
	}
	l.to.Log(ctx, level, "nats-server", "says", fmt.Sprintf(format, args...))
}

func (l *logger) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.say(slog.LevelDebug, format, args) }
func (l *logger) Errorf(format string, args ...any)  { l.say(slog.LevelWarn, format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.say(slog.LevelDebug, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.say(slog.LevelDebug, format, args) }

// Fatalf does not end the process, as the server's own logger would: the server
// returns from what it was doing, and Start looks here.
func (l *logger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.fatal.CompareAndSwap(nil, &text)
	l.say(slog.LevelDebug, format, args)
}

// explain turns the server's last words into an error with a remedy.
func explain(fatal string, o Options) error {
	switch {
	case strings.Contains(fatal, "address already in use"):
		return portTaken(o.Port)
	case strings.Contains(fatal, "permission denied") || strings.Contains(fatal, "read-only file system"):
		return fmt.Errorf("store directory %s cannot be written to: %s; choose another, or correct its owner and mode", o.Dir, fatal)
	}
	return errors.New(fatal)
}
