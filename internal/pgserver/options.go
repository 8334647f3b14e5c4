package pgserver

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options says how a cluster is set up. Nil and zero fields mean the defaults.
type Options struct {
	// BinDir holds the server binaries. Default: what [Find] returns.
	BinDir string

	// Dir becomes the cluster's directory. It must be absent or empty.
	// Default: a new directory below [os.TempDir].
	Dir string

	// Keep leaves the directory on disk at Stop.
	Keep bool

	// Port is the TCP port on 127.0.0.1. Default: one that is free.
	Port int

	// Settings are added to postgresql.conf and win over the defaults, which are
	// wal_level=logical, max_wal_senders=20, max_replication_slots=20 and those
	// that Fsync decides. Addresses and ports cannot be set here.
	Settings map[string]string

	// Fsync makes commits survive a crash of the operating system. Off by
	// default: commits survive a crash of PostgreSQL only.
	Fsync bool

	// StartTimeout bounds each start of the server, crash recovery included.
	// Default 60s.
	StartTimeout time.Duration

	// Logger gets starts and stops at debug level. Default: discard.
	Logger *slog.Logger
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$.]*$`)

// withDefaults returns a filled copy, or all faults at once.
func (o *Options) withDefaults() (Options, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	var faults []error
	if opts.Port < 0 || opts.Port > 65535 {
		faults = append(faults, fmt.Errorf("port %d is not between 0 and 65535", opts.Port))
	}
	if opts.StartTimeout < 0 {
		faults = append(faults, fmt.Errorf("start timeout %s is negative", opts.StartTimeout))
	}
	for _, name := range slices.Sorted(maps.Keys(opts.Settings)) {
		switch strings.ToLower(name) {
		case "port", "listen_addresses", "unix_socket_directories", "data_directory":
			faults = append(faults, fmt.Errorf("setting %s belongs to this package; see Options.Port and Options.Dir", name))
			continue
		}
		if !settingName.MatchString(name) {
			faults = append(faults, fmt.Errorf("setting %q is not a parameter name", name))
		}
		if strings.ContainsAny(opts.Settings[name], "\n\r\x00") {
			faults = append(faults, fmt.Errorf("setting %s has a value with a line break or NUL", name))
		}
	}
	if opts.BinDir == "" {
		dir, err := Find()
		if err != nil {
			faults = append(faults, err)
		}
		opts.BinDir = dir
	}
	if opts.StartTimeout == 0 {
		opts.StartTimeout = 60 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Dir != "" {
		dir, err := filepath.Abs(opts.Dir)
		if err != nil {
			faults = append(faults, fmt.Errorf("directory %s: %w", opts.Dir, err))
		}
		opts.Dir = dir
	}
	return opts, errors.Join(faults...)
}

// conf renders the lines that are added to postgresql.conf. They are lines of a
// file rather than arguments of postgres so that ALTER SYSTEM still wins.
func (o *Options) conf(port int, socketDir string) string {
	onOff := "off"
	if o.Fsync {
		onOff = "on"
	}
	settings := map[string]string{
		"wal_level":             "logical",
		"max_wal_senders":       "20",
		"max_replication_slots": "20",
		"fsync":                 onOff,
		"full_page_writes":      onOff,
		"logging_collector":     "off",
		"log_destination":       "stderr",
	}
	for name, value := range o.Settings {
		settings[strings.ToLower(name)] = value
	}
	settings["listen_addresses"] = "127.0.0.1"
	settings["port"] = strconv.Itoa(port)
	settings["unix_socket_directories"] = socketDir

	quote := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	var b strings.Builder
	b.WriteString("\n# Added by rowcall.\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, quote.Replace(settings[name]))
	}
	return b.String()
}
