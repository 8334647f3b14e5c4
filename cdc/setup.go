package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Check connects and looks whether Run could work, as far as that can be told
// without changing anything: the privileges and settings, the tables, the
// publication and the slot. It waits for a slot in use as Run does. Run does
// the same by itself; a program that wants to open something else first, and
// to leave nothing behind there if the database is not ready, calls Check
// before. The error is a [SetupError], or that of a query.
func (s *Source) Check(ctx context.Context) error {
	conn, err := s.connectFirst(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	_, err = s.look(ctx, conn)
	return err
}

func (s *Source) connectFirst(ctx context.Context) (*pgx.Conn, error) {
	conn, err := s.c.connect(ctx)
	if err != nil {
		return nil, &SetupError{Findings: []Finding{connectionFinding(err, s.c)}}
	}
	return conn, nil
}

// look takes the inventory and refuses what is fatal.
func (s *Source) look(ctx context.Context, conn *pgx.Conn) (*inventory, error) {
	inv, err := takeInventory(ctx, conn, s.c)
	if err != nil {
		return nil, err
	}
	var fatal []Finding
	for _, f := range inv.findings(s.c) {
		if f.Level == Fatal {
			fatal = append(fatal, f)
		}
	}
	if len(fatal) > 0 {
		return nil, &SetupError{Findings: fatal}
	}
	return s.waitForSlot(ctx, conn, inv)
}

// setUp checks everything first and then creates what is missing. It returns
// what it found before, and whether this run has to begin with a snapshot.
func (s *Source) setUp(ctx context.Context, conn *pgx.Conn) (inv *inventory, snapshot bool, err error) {
	if inv, err = s.look(ctx, conn); err != nil {
		return nil, false, err
	}
	for _, f := range inv.findings(s.c) {
		if f.Level == Warning {
			s.c.Logger.WarnContext(ctx, "check", "finding", f.Text, "remedy", f.Remedy)
		}
	}
	repl, id, err := s.c.connectIdentified(ctx)
	if err != nil {
		return nil, false, err
	}
	defer repl.Close(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.standby = inv.recovery
	s.mu.Unlock()
	if inv.slot, err = s.takeOver(ctx, repl, id, inv.slot); err != nil {
		return nil, false, err
	}

	snapshot = s.c.Snapshot == SnapshotOnly || (s.c.Snapshot == SnapshotInitial && inv.slot == nil)
	if s.c.Snapshot == SnapshotOnly {
		return inv, true, nil // reads tables, needs neither
	}
	created := false
	if inv.publication == nil {
		if err := s.createPublication(ctx, conn, inv); err != nil {
			return nil, false, err
		}
		created = true
	} else {
		s.c.Logger.InfoContext(ctx, "found publication", "publication", s.c.Publication)
	}
	switch {
	case inv.slot != nil:
		s.c.Logger.InfoContext(ctx, "found slot", "slot", s.c.Slot, "confirmed", inv.slot.confirmed.String())
		if err := s.keepOnStandbys(ctx, repl, inv.slot.failover); err != nil {
			return nil, false, err
		}
	case s.c.Snapshot == SnapshotNever:
		at, err := s.makeSlot(ctx, conn, repl)
		if err != nil {
			if created {
				_, dropErr := conn.Exec(context.WithoutCancel(ctx), "DROP PUBLICATION "+quote(s.c.Publication))
				err = errors.Join(err, dropErr)
			}
			return nil, false, err
		}
		if err := s.made(ctx, repl, id, at); err != nil {
			return nil, false, err
		}
	}
	return inv, snapshot, nil
}

// createPublication publishes the tables that were asked for, or all of them,
// partitioned ones under their own name.
func (s *Source) createPublication(ctx context.Context, conn *pgx.Conn, inv *inventory) error {
	_, err := conn.Exec(ctx, inv.publicationSQL(s.c, inv.forAllTables(s.c)))
	if err != nil {
		return fmt.Errorf("create publication %q: %w", s.c.Publication, err)
	}
	s.c.Logger.InfoContext(ctx, "created publication", "publication", s.c.Publication, "tables", len(inv.tables))
	return nil
}

// waitForSlot gives a predecessor that has just died the time to let go of the
// slot.
func (s *Source) waitForSlot(ctx context.Context, conn *pgx.Conn, inv *inventory) (*inventory, error) {
	deadline := time.Now().Add(s.c.SlotWait)
	for logged := false; ; logged = true {
		inUse := slotInUse(inv, s.c)
		if inUse == nil || s.c.Snapshot == SnapshotOnly {
			return inv, nil
		}
		if time.Now().After(deadline) {
			return nil, &SetupError{Findings: []Finding{*inUse}}
		}
		if !logged {
			s.c.Logger.WarnContext(ctx, "waiting for the slot", "finding", inUse.Text, "at_most", s.c.SlotWait)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
		var err error
		if inv, err = takeInventory(ctx, conn, s.c); err != nil {
			return nil, err
		}
	}
}

// wanted reports whether events of a published table were asked for.
func (c *config) wanted(schema, table string) bool {
	if len(c.patterns) == 0 {
		return true
	}
	for _, p := range c.patterns {
		if p.matches(schema, table) {
			return true
		}
	}
	return false
}

// sleep waits for d, or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
