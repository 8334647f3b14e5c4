package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// The speakers of the demo's story.
const (
	byPostgres = "postgres"
	byRegion   = "region"
	byListener = "listener"
	byNATS     = "nats"
	byFleet    = "fleet"
)

var speakerColours = map[string]colour{
	byPostgres: cyan, byRegion: green, byListener: yellow, byNATS: magenta, byFleet: red,
}

// A story is what the demo prints: one line at a time, each with its time and
// its speaker. Any goroutine may tell.
type story struct {
	palette palette
	began   time.Time

	mu sync.Mutex
	w  io.Writer
}

func newStory(w io.Writer, p palette) *story { return &story{w: w, palette: p, began: time.Now()} }

func (s *story) tell(speaker, format string, args ...any) {
	at := fmt.Sprintf("%6.2fs", time.Since(s.began).Seconds())
	s.print(fmt.Sprintf("%s  %s  %s", s.palette.paint(faint, at),
		s.palette.paint(speakerColours[speaker], fmt.Sprintf("%-8s", speaker)), fmt.Sprintf(format, args...)))
}

func (s *story) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.w, text)
}

// summary says what happened in numbers, and how to go on.
func (s *story) summary(t *trip) {
	stats := t.source.Stats()
	s.print(fmt.Sprintf(`
%d events in %d transactions, %d of them rows that were there before.
From a commit in PostgreSQL to the Go listener: %s (median of %d transactions).`,
		stats.Events, stats.Transactions, stats.Reads, t.latency.median(), t.latency.count()))
}

// ownDatabase says how to do it without the demo.
func (s *story) ownDatabase() {
	s.print(`
With your own database:
  rowcall doctor --database-url postgres://app@localhost/shop
  rowcall run --database-url postgres://app@localhost/shop --tables public.seats
  rowcall tail seats
In Go, with regions and listeners: examples/tickets.`)
}

// invitation says how to join in while the demo is kept running.
func (s *story) invitation(databaseURL, natsURL string) {
	s.print(fmt.Sprintf(`
Everything goes on until you press Ctrl-C. In other terminals:
  psql %[1]s
  psql %[1]s -c "UPDATE seats SET passenger = 'you' WHERE train = 2 AND passenger IS NULL"
  rowcall tail seats --nats-url %[2]s
  rowcall tail --from-start --json --nats-url %[2]s
  nats sub 'cdc.demo.>' --server %[2]s
`, databaseURL, natsURL))
}
