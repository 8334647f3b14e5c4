package cdc_test

import (
	"context"
	"testing"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// A heldSession calls a hook before each batch.
type heldSession struct {
	session
	before func(context.Context, *listeners.Batch) error
}

func (s *heldSession) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if err := s.before(ctx, b); err != nil {
		return err
	}
	return s.session.OnBatch(ctx, b)
}

// What the random history refuses has to be what a source must not do. A
// snapshot that was interrupted in the middle goes on with changes of the tables
// that it has, and then with a Reset for the others.
func TestHistoryAllowsForASnapshotThatGoesOn(t *testing.T) {
	url, dir := pgtest.Database(t), t.TempDir()
	conn := pgtest.Connect(t, url)
	exec(t, conn,
		"CREATE TABLE a (id_0 int PRIMARY KEY, n_0 int)", "INSERT INTO a SELECT i, 0 FROM generate_series(1, 500) i",
		"CREATE TABLE f (id_0 int PRIMARY KEY, n_0 int)", "INSERT INTO f SELECT i, 0 FROM generate_series(1, 500) i",
		"CREATE TABLE tx (id_0 bigserial PRIMARY KEY, events_0 int)")
	var l ledger
	hook, reached, release := at("public.f")
	s := &heldSession{session: session{ledger: &l}, before: hook}
	src := run(t, url, &cdc.Options{StateDir: dir, MaxBytes: 20_000, MaxBatchBytes: 5_000}, func(src *cdc.Source) {
		if _, err := src.Subscribe("ledger", s, nil); err != nil {
			t.Fatal(err)
		}
	})
	<-reached
	waitDone(t, dir, src, "a")
	exec(t, conn,
		"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowcall'",
		"BEGIN", "UPDATE a SET n_0 = 1 WHERE id_0 = 7", "UPDATE f SET n_0 = 1 WHERE id_0 = 7", "INSERT INTO tx (events_0) VALUES (2)", "COMMIT")
	close(release)
	src.caughtUp()
	if err := l.verdict(); err != nil {
		t.Error(err)
	}
	if l.resets != 2 {
		t.Errorf("%d resets, want two: the snapshot goes on", l.resets)
	}
}
