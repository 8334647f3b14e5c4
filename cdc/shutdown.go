package cdc

import (
	"context"
	"time"
)

const (
	shutdownInterval = 5 * time.Second
	shutdownPatience = 3 * time.Second
)

// yieldToShutdown closes the connection when the server is shutting down and
// waits for this source. Its last process but the walsenders has gone then, and
// it ends when they have been told that all of the log is stored (Postgres
// manual, "Shutting Down the Server"): never, while a subscription cannot store
// anything or a transaction stays prepared. The walsender does not say that it
// waits, but new connections are told.
func (s *Source) yieldToShutdown(ctx context.Context, w *wire) {
	tick := time.NewTicker(shutdownInterval)
	defer tick.Stop()
	var before LSN
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		confirmed, all := s.tracker.standing(s.stored())
		if !all && confirmed == before && s.shuttingDown(ctx) {
			s.c.Logger.WarnContext(ctx, "the server is shutting down; closing the connection before everything is stored", "slot", s.c.Slot, "stored", confirmed.String())
			w.close() // the reader may be waiting for subscriptions
			return
		}
		before = confirmed
	}
}

// shuttingDown reports whether the server turns new connections away since it
// is about to end. Before it can take any it does so, too, but then it would not
// have the one that this is about.
func (s *Source) shuttingDown(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	conn, err := s.c.connect(ctx)
	if err != nil {
		return sqlState(err) == "57P03" // cannot connect now
	}
	hangUp(ctx, conn.PgConn())
	return false
}
