package main

import (
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

// logFlags say what is logged to standard error, and how.
type logFlags struct {
	level  *choice
	format *choice
}

func addLogFlags(cmd *cobra.Command) *logFlags {
	f := &logFlags{
		level:  newChoice("info", "debug", "info", "warn", "error"),
		format: newChoice("text", "text", "json"),
	}
	cmd.Flags().Var(f.level, "log-level", "log this and what is worse")
	cmd.Flags().Var(f.format, "log-format", "log lines for people or for machines")
	return f
}

func (f *logFlags) json() bool { return f.format.value == "json" }

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level.value)); err != nil {
		return nil, errors.New("--log-level: " + err.Error())
	}
	opts := &slog.HandlerOptions{Level: level}
	if f.json() {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
