package cdc

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SnapshotMode says whether a source reads the rows that are there already.
type SnapshotMode string

// The snapshot modes.
const (
	// SnapshotInitial reads the tables when the slot does not exist yet.
	SnapshotInitial SnapshotMode = "initial"
	// SnapshotNever begins with the first change after the slot was created.
	SnapshotNever SnapshotMode = "never"
	// SnapshotOnly reads the tables and ends; it leaves no slot behind.
	SnapshotOnly SnapshotMode = "only"
)

// StreamingMode says when the server sends a large transaction.
type StreamingMode string

// The streaming modes.
const (
	// StreamingOn takes a transaction that is larger than the server's
	// logical_decoding_work_mem while it is in progress, and delivers it when it
	// has committed.
	StreamingOn StreamingMode = "on"
	// StreamingOff has the server keep it, on its own disk, until it commits.
	StreamingOff StreamingMode = "off"
)

// Options set up a source. Nil and zero mean the defaults.
type Options struct {
	// Tables are patterns "schema.table" or "schema.*"; a name without a dot
	// is in schema public. A part may be double-quoted as in SQL. Default: all
	// tables of the publication, or of the database where there is none yet.
	Tables []string
	// Slot is the replication slot, created when it is missing. Default
	// "rowcall_" and the database's name.
	Slot string
	// Publication is created when it is missing, and never altered. Default:
	// the slot's name.
	Publication string
	// Snapshot is SnapshotInitial by default.
	Snapshot SnapshotMode
	// MaxBytes bounds the memory for batches that some subscription has not
	// handled yet. Default [listeners.DefaultFeedBytes].
	MaxBytes int64
	// MaxBatchBytes is the size beyond which a transaction is delivered in
	// parts. Default 4 MiB.
	MaxBatchBytes int
	// Streaming is StreamingOn by default.
	Streaming StreamingMode
	// MaxSpoolBytes bounds the memory for streamed transactions that have not
	// committed, but for 16 KiB of each. What is beyond goes to temporary files.
	// Default 8 MiB.
	MaxSpoolBytes int
	// SpoolDir is where those files are; they go with the process. They may
	// become as large as all transactions in progress. It has to exist, and [New]
	// looks whether files can be made there. Default [os.TempDir].
	SpoolDir string
	// TwoPhase has the server send a transaction when it is prepared (PREPARE
	// TRANSACTION) rather than when it commits, which takes load off COMMIT
	// PREPARED. Listeners hear it after that all the same, and never one that is
	// rolled back. While a transaction stays prepared, the slot is not confirmed
	// beyond it: after a restart, what came since comes again. Needs Postgres 15.
	TwoPhase bool
	// SlotWait is how long to wait for a slot that another process holds.
	// Default 5 s, which covers a predecessor that has just died.
	SlotWait time.Duration
	// StopTimeout bounds the wait for running listeners when the source
	// stops. Default 15 s.
	StopTimeout time.Duration
	// MaxRetainedWAL is how many bytes of WAL the server may keep for the slot
	// before the Logger is warned, at most once a minute. The slot is looked up
	// every 10 s over a connection of its own. RetainedWALPolicy may do more than
	// that. Default: no look-up.
	MaxRetainedWAL int64
	// Undecodable says what happens with a message that cannot be read. Default
	// UndecodableStop. To park needs a StateDir.
	Undecodable UndecodablePolicy
	// CatchUpBytes is how many bytes of WAL the slot may be behind when a
	// connection begins; what is more is read with SQL functions from a
	// temporary copy of the slot, which is faster, and then streaming goes on.
	// It needs one free slot for that time. Default 64 MiB; negative: stream
	// always.
	CatchUpBytes int64
	// HistoryBytes is how much of what was read last stays in memory, in the
	// bytes of MaxBytes, so that a subscription during Run can go on from a
	// position. Default 0: none.
	HistoryBytes int64
	// StateDir is a directory for what a source remembers from one run to the
	// next, in a file named after the slot. It is created when it is missing.
	// With it, a first snapshot that was interrupted goes on: until it is stored,
	// a permanent slot named after the source's, with "_snapshot" at its end,
	// keeps the changes of the tables that are.
	// Subscriptions with a durable name need it to go on in the next run.
	// Default: nothing is remembered but what the server knows of the slot.
	StateDir string
	// LostSlot says what happens when changes are lost. Default: LostSlotFail.
	// LostSlotResnapshot needs SnapshotInitial.
	LostSlot LostSlotPolicy
	// RetainedWALPolicy says what happens beyond MaxRetainedWAL. Default:
	// RetainedWALWarn.
	RetainedWALPolicy RetainedWALPolicy
	// Failover makes the slot one that standbys keep in step (sync_replication_slots),
	// so that the source goes on after a promotion. Needs Postgres 17.
	Failover bool
	// Messages are the prefixes of logical messages (pg_logical_emit_message) to
	// deliver; "orders.*" stands for all that begin with "orders.", "*" for all.
	// Those that begin with "rowcall." are never delivered. Default: none.
	Messages []string
	// Outbox are tables whose inserts are messages. Default: none.
	Outbox []Outbox
	// SnapshotWorkers is how many connections read a snapshot's tables at the
	// same time, each a part of the same table. A table of less than 8 MiB needs
	// one. Default: GOMAXPROCS, at most 4.
	SnapshotWorkers int
	// Progress is called during a snapshot or a backfill, at most some times a
	// second, from one goroutine at a time. Default: nothing.
	Progress func(Progress)
	// Logger receives what an operator wants to know. Default: nothing.
	Logger *slog.Logger
}

// Progress is how far a snapshot is.
type Progress struct {
	Table         string // the table that is being read, as "schema.table"
	Tables        int    // how many there are
	TablesDone    int
	Rows          int64 // read so far, of all tables
	EstimatedRows int64 // of all tables, from the planner's statistics; 0 if unknown
	Done          bool
	TableRows     int64 // of Rows, those of Table
	// RowsPerSecond is the mean since the first row was asked for, Elapsed
	// ago. ETA is the time that the rest takes if it goes on like this, 0
	// if that is not known; it goes by the tables' sizes on disk.
	RowsPerSecond float64
	Elapsed, ETA  time.Duration
}

const (
	defaultMaxBatchBytes = 4 << 20
	defaultSlotWait      = 5 * time.Second
	defaultStopTimeout   = 15 * time.Second
)

// config is what Options and a connection string come to.
type config struct {
	Options
	database string
	conn     *pgx.ConnConfig
	patterns []pattern
	prefixes prefixes
	outboxes []outboxTable

	// What tests change.
	watchInterval time.Duration
	snapshotPause time.Duration
	chunkPages    int64 // that one query of a snapshot reads
}

// newConfig applies defaults and reports every fault at once.
func newConfig(databaseURL string, opts *Options) (*config, error) {
	c := new(config)
	if opts != nil {
		c.Options = *opts
	}
	if tooManyAts(databaseURL) {
		return nil, errors.New("cdc: database URL: there is more than one @; in a user, a password or a database's name, write %40 for @")
	}
	conn, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("cdc: database URL: %w", redact(err))
	}
	c.conn, c.database = conn, conn.Database
	if c.database == "" {
		c.database = conn.User
	}
	var faults []error
	switch {
	case c.Slot == "":
		c.Slot = defaultSlot(c.database)
	case !slotName.MatchString(c.Slot):
		faults = append(faults, fmt.Errorf("slot %q: a slot's name has 1 to 63 of a-z, 0-9 and _", c.Slot))
	case strings.HasSuffix(c.Slot, keeperSuffix):
		faults = append(faults, fmt.Errorf("slot %q: names that end in %s are those of snapshots", c.Slot, keeperSuffix))
	}
	if c.Publication == "" {
		c.Publication = c.Slot
	}
	if len(c.Publication) > 63 || strings.ContainsRune(c.Publication, 0) {
		faults = append(faults, fmt.Errorf("publication %q: a name has at most 63 bytes, none of them zero", c.Publication))
	}
	switch c.Snapshot {
	case "":
		c.Snapshot = SnapshotInitial
	case SnapshotInitial, SnapshotNever, SnapshotOnly:
	default:
		faults = append(faults, fmt.Errorf("snapshot %q: want initial, never or only", c.Snapshot))
	}
	switch c.Streaming {
	case "":
		c.Streaming = StreamingOn
	case StreamingOn, StreamingOff:
	default:
		faults = append(faults, fmt.Errorf("streaming %q: want on or off", c.Streaming))
	}
	switch c.Undecodable {
	case "":
		c.Undecodable = UndecodableStop
	case UndecodableStop:
	case UndecodablePark:
		if c.StateDir == "" {
			faults = append(faults, errors.New("undecodable messages are parked in the StateDir; name one"))
		}
	default:
		faults = append(faults, fmt.Errorf("undecodable %q: want stop or park", c.Undecodable))
	}
	if err := c.checkSpoolDir(); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, c.slotPolicies()...)
	if c.MaxRetainedWAL < 0 {
		faults = append(faults, fmt.Errorf("max retained WAL %d: want 0 or more bytes", c.MaxRetainedWAL))
	}
	for _, t := range c.Tables {
		p, err := parsePattern(t)
		if err != nil {
			faults = append(faults, err)
		}
		c.patterns = append(c.patterns, p)
	}
	faults = append(faults, c.readMessages()...)
	if c.MaxBatchBytes <= 0 {
		c.MaxBatchBytes = defaultMaxBatchBytes
	}
	if c.MaxSpoolBytes <= 0 {
		c.MaxSpoolBytes = defaultSpoolBytes
	}
	if c.SlotWait <= 0 {
		c.SlotWait = defaultSlotWait
	}
	if c.SnapshotWorkers <= 0 {
		c.SnapshotWorkers = min(maxSnapshotWorkers, runtime.GOMAXPROCS(0))
	}
	c.chunkPages = chunkPages
	if c.CatchUpBytes == 0 {
		c.CatchUpBytes = defaultCatchUpBytes
	}
	if c.StopTimeout <= 0 {
		c.StopTimeout = defaultStopTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("cdc: options: %w", errors.Join(faults...))
	}
	pin(conn.RuntimeParams)
	return c, nil
}

// pin fixes the session settings that decide how values are written, and keeps
// timeouts meant for interactive users from ending ours.
func pin(params map[string]string) {
	// Row security off: an error instead of a part of the rows. The search path:
	// nobody's operators and functions but the server's own.
	maps.Copy(params, map[string]string{
		"application_name":                    "rowcall",
		"timezone":                            "UTC",
		"datestyle":                           "ISO, MDY",
		"intervalstyle":                       "postgres",
		"bytea_output":                        "hex",
		"extra_float_digits":                  "1",
		"client_encoding":                     "UTF8",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
		"row_security":                        "off",
		"search_path":                         "pg_catalog",
	})
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// defaultSlot turns a database's name into a legal slot name.
func defaultSlot(database string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, database)
	return ("rowcall_" + safe)[:min(63, len("rowcall_")+len(safe))]
}

// tooManyAts reports whether a user or a password in a URL was not encoded. As
// with libpq the first @ ends them, and what follows would be taken for a host or
// a database, which are shown.
func tooManyAts(databaseURL string) bool {
	before, _, _ := strings.Cut(databaseURL, "?")
	return strings.HasPrefix(before, "postgres") && strings.Contains(before, "://") && strings.Count(before, "@") > 1
}

// redact leaves the connection string out of its parse error: pgconn masks a
// password only where it recognises it, and "password = x" it does not.
func redact(err error) error {
	parse, ok := errors.AsType[*pgconn.ParseConfigError](err)
	if !ok {
		return err
	}
	text := parse.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 { // cannot parse `…`: why
		text = text[i+len("`: "):]
	}
	if before, _, quotes := strings.Cut(text, `: "`); quotes { // a part of the string again
		text = before + ")"
	}
	return fmt.Errorf("%s; want postgres://user:password@host:port/database", text)
}
