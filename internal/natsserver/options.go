package natsserver

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
)

const (
	defaultMaxPayload = 8 << 20
	maxPayloadLimit   = 64 << 20 // what the server lets a connection have pending
)

// Options says how the server runs. Dir is required; other zero fields mean the
// defaults.
type Options struct {
	// Port is the TCP port on 127.0.0.1. 0 takes a free one, and so does -1, which
	// is how the NATS server itself spells that; see [Server.Port].
	Port int

	// Dir is the store directory. It is created if absent.
	Dir string

	// MaxPayload bounds a message in bytes, headers included. Default 8 MiB, at
	// most 64 MiB. NATS itself defaults to 1 MiB, which a row may exceed.
	MaxPayload int32

	// SyncAlways makes an ack mean fsync; see the package comment. It is slow:
	// one fsync per message.
	SyncAlways bool

	// Logger gets the server's errors as warnings, and the rest of what it says
	// at debug level. Default: discard.
	Logger *slog.Logger
}

// withDefaults returns a filled copy, or all faults at once.
func (o *Options) withDefaults() (Options, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	var faults []error
	switch {
	case opts.Port == -1:
		opts.Port = 0
	case opts.Port < 0 || opts.Port > 65535:
		faults = append(faults, fmt.Errorf("port %d is not between 0 and 65535", opts.Port))
	}
	if opts.MaxPayload < 0 || opts.MaxPayload > maxPayloadLimit {
		faults = append(faults, fmt.Errorf("max payload %d is not between 0 and %d bytes", opts.MaxPayload, maxPayloadLimit))
	}
	if opts.MaxPayload == 0 {
		opts.MaxPayload = defaultMaxPayload
	}
	if opts.Dir == "" {
		faults = append(faults, errors.New("no store directory"))
	} else {
		dir, err := filepath.Abs(opts.Dir)
		if err != nil {
			faults = append(faults, fmt.Errorf("store directory %s: %w", opts.Dir, err))
		}
		opts.Dir = dir
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return opts, errors.Join(faults...)
}
