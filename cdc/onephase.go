package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

var errOnePhase = errors.New("connecting again to do without two-phase transactions")

// leaveTwoPhase puts a slot in the place of the source's that is at the same
// position and sends prepared transactions when they commit: no copy of a slot
// is one for two-phase transactions. It reports whether the source's slot was one.
//
// Servers of all versions to date (15 to 18 were tried) may fail to decode a
// prepared transaction that was rolled back and had rewritten a table inside a
// savepoint ("could not map filenode"), and then at each attempt. When they need
// not send it before its end, they never decode it.
//
// The statements are sent together, so that the server carries them out even if
// this process ends meanwhile. A slot is confirmed outside of all transactions
// that are prepared, so none is left out and none comes twice.
func (s *Source) leaveTwoPhase(ctx context.Context) (done bool, err error) {
	copied := temporarySlot(s.c.Slot, "_one_phase", 0)
	err = s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, "SELECT two_phase FROM pg_replication_slots WHERE slot_name = $1", s.c.Slot).Scan(&done)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !done {
			return nil
		}
		if err != nil {
			return err
		}
		slot, other := literal(s.c.Slot), literal(copied)
		_, err = conn.PgConn().Exec(ctx, `
			SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = `+other+`;
			SELECT pg_copy_logical_replication_slot(`+slot+`, `+other+`);
			SELECT pg_drop_replication_slot(`+slot+`);
			SELECT pg_copy_logical_replication_slot(`+other+`, `+slot+`);
			SELECT pg_drop_replication_slot(`+other+`)`).ReadAll()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("make slot %q one without two-phase transactions: %w", s.c.Slot, err)
	}
	if !done {
		return false, nil
	}
	s.tracker.onePhase()
	repl, _, err := s.c.connectReplication(ctx)
	if err != nil {
		return true, err
	}
	defer hangUp(ctx, repl)
	return true, s.keepOnStandbys(ctx, repl, false)
}
