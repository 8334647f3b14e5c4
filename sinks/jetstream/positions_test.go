package jetstream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// brief is a lease that a busy machine keeps.
const brief = 3 * time.Second

func newPositions(t *testing.T, nc *nats.Conn, opts *jetstream.PositionsOptions) *jetstream.Positions {
	t.Helper()
	p, err := jetstream.NewPositions(nc, opts)
	if err != nil {
		t.Fatalf("NewPositions: %v", err)
	}
	return p
}

func atCommit(commit uint64) listeners.Position {
	return listeners.Position{Epoch: 1, Commit: commit}
}

// opened opens a name that must be free and have this position.
func opened(t *testing.T, s listeners.PositionStore, name string, want listeners.Position) listeners.PositionKeeper {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k, found, err := s.Open(ctx, name)
	if err != nil || found != want {
		t.Fatalf("Open(%q) = %s, %v; want %s", name, found, err, want)
	}
	return k
}

func TestPositions(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	listenertest.Positions(t, func(t *testing.T) listeners.PositionStore {
		return newPositions(t, connect(t, s), &jetstream.PositionsOptions{Lease: brief})
	})
}

func TestPositionsOnACluster(t *testing.T) {
	t.Parallel()
	nc := cluster(t)
	stepped := 0
	listenertest.Positions(t, func(t *testing.T) listeners.PositionStore {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		// There is none before the first store, and between two leaders nobody answers.
		if _, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN.KV_"+jetstream.DefaultPositionsBucket, nil); err == nil {
			stepped++
		}
		return newPositions(t, nc, &jetstream.PositionsOptions{Replicas: 3, Lease: brief})
	})
	t.Logf("%d leaders stepped down", stepped)
}

// A process that dies lets go of nothing.
func TestNameOfADeadOwnerIsFreeAfterTheLease(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	opts := &jetstream.PositionsOptions{Lease: time.Second}
	victim := connect(t, s)
	dead := opened(t, newPositions(t, victim, opts), "mails", listeners.Position{})
	if err := dead.Save(t.Context(), atCommit(7)); err != nil {
		t.Fatal(err)
	}
	victim.Close()
	began := time.Now()
	k := opened(t, newPositions(t, connect(t, s), opts), "mails", atCommit(7))
	if took := time.Since(began); took < opts.Lease {
		t.Errorf("the name was free after %s, want %s at least", took, opts.Lease)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if err := dead.Close(); err == nil || !strings.Contains(err.Error(), "free again 1s after") {
		t.Errorf("Close without a connection = %v, want when the name is free", err)
	}
}

// An owner that was out of reach for a lease, and whose name is another's now,
// learns that when it is back, and overwrites nothing.
func TestOwnerThatWasOutOfReachLosesTheName(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	opts := &jetstream.PositionsOptions{Lease: time.Second}
	w := new(wire)
	owner := opened(t, newPositions(t, connect(t, s, nats.SetCustomDialer(w)), opts), "mails", listeners.Position{})
	if err := owner.Save(t.Context(), atCommit(7)); err != nil {
		t.Fatal(err)
	}
	w.away.Store(true)
	w.cut()
	if err := save(t, owner, atCommit(8)); err == nil || errors.Is(err, listeners.ErrNameTaken) {
		t.Errorf("Save without a server = %v, want why it failed", err)
	}
	opts.Lease = brief // so that it keeps the name on a busy machine
	next := opened(t, newPositions(t, connect(t, s), opts), "mails", atCommit(7))
	if err := next.Save(t.Context(), atCommit(9)); err != nil {
		t.Fatal(err)
	}
	w.away.Store(false)
	eventually(t, "the owner learns that the name is another's", func() bool {
		return errors.Is(save(t, owner, atCommit(8)), listeners.ErrNameTaken)
	})
	if err := errors.Join(owner.Close(), next.Close()); err != nil {
		t.Errorf("Close = %v, want nil of the one that lost the name, too", err)
	}
	if err := opened(t, newPositions(t, connect(t, s), opts), "mails", atCommit(9)).Close(); err != nil {
		t.Error(err)
	}
}

// save gives up soon.
func save(t *testing.T, k listeners.PositionKeeper, p listeners.Position) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return k.Save(ctx, p)
}

// What was stored although nobody said so is known to be one's own.
func TestPositionsWithLostAcknowledgements(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	w := &wire{stream: "KV_" + jetstream.DefaultPositionsBucket}
	// No sign of life comes in between.
	store := newPositions(t, connect(t, s, nats.SetCustomDialer(w)), &jetstream.PositionsOptions{Lease: time.Hour})
	want := listeners.Position{}
	for round := range uint64(2) {
		w.lose.Store(1)
		k := opened(t, store, "mails", want)
		w.lose.Store(1)
		if err := save(t, k, atCommit(10*round+1)); err == nil {
			t.Error("Save whose acknowledgement was lost returned no error, so this test shows nothing")
		}
		want = atCommit(10*round + 2)
		if err := k.Save(t.Context(), want); err != nil {
			t.Errorf("Save after a lost acknowledgement = %v", err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := opened(t, store, "mails", want).Close(); err != nil {
		t.Error(err)
	}
}

// A name that is in use stays in use, however long nothing is saved.
func TestOwnerThatSavesNothingKeepsTheName(t *testing.T) {
	t.Parallel() // it takes a while
	s := natstest.Run(t)
	opts := &jetstream.PositionsOptions{Lease: 15 * time.Second} // so that it keeps the name on a busy machine
	k := opened(t, newPositions(t, connect(t, s), opts), "idle", listeners.Position{})
	began := time.Now()
	other := newPositions(t, connect(t, s), opts)
	for time.Since(began) < opts.Lease*5/3 {
		_, _, err := other.Open(t.Context(), "idle")
		if !errors.Is(err, listeners.ErrNameTaken) {
			t.Fatalf("Open after %s = %v, want ErrNameTaken", time.Since(began), err)
		}
	}
	if err := errors.Join(k.Save(t.Context(), atCommit(1)), k.Close()); err != nil {
		t.Error(err)
	}
}

// A subscription whose store is away handles on, and stores when it is back.
func TestPositionsSurviveARestartOfTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	port := s.Port()
	store := newPositions(t, connect(t, s), nil)
	feed := listeners.NewFeed(nil)
	defer feed.Close()
	sub, err := feed.Subscribe("mails", new(listenertest.Recorder), &listeners.SubscribeOptions{Positions: store, SaveInterval: time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for commit := range uint64(6) {
		if commit%2 == 1 {
			s.Stop()
		}
		feed.Append(&listeners.Batch{Position: atCommit(commit + 1), First: true, Last: true, Size: 1})
		eventually(t, "it is handled, with and without a server", func() bool { return sub.Handled() == atCommit(commit+1) })
		if commit%2 == 1 {
			if saved, _ := sub.Saved(); saved == atCommit(commit+1) {
				t.Errorf("%s is saved without a server", saved)
			}
			if s, err = natstest.Start(t.Context(), &natsserver.Options{Dir: dir, Port: port}); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "it is saved", func() bool { return sub.Stored() == atCommit(commit+1) })
	}
	if err := sub.CloseWait(t.Context()); err != nil || sub.Err() != nil {
		t.Errorf("CloseWait = %v, Err() = %v", err, sub.Err())
	}
	if err := opened(t, store, "mails", atCommit(6)).Close(); err != nil {
		t.Error(err)
	}
	s.Stop()
}

// Whoever starts while the server is away waits for it.
func TestPositionsOpenBeforeTheServerIsBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	port := s.Port()
	store := newPositions(t, connect(t, s), nil)
	k := opened(t, store, "mails", listeners.Position{})
	if err := errors.Join(k.Save(t.Context(), atCommit(3)), k.Close()); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	found := make(chan listeners.Position, 1)
	go func() {
		k, p, err := store.Open(t.Context(), "mails")
		if err == nil {
			err = k.Close()
		}
		if err != nil {
			t.Errorf("Open while the server was away = %v", err)
		}
		found <- p
	}()
	select {
	case <-found:
		t.Fatal("Open returned without a server")
	case <-time.After(100 * time.Millisecond):
	}
	s, err := natstest.Start(t.Context(), &natsserver.Options{Dir: dir, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if p := <-found; p != atCommit(3) {
		t.Errorf("Open found %s, want %s", p, atCommit(3))
	}
}

func TestOpenOfPositionsEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	owner := opened(t, newPositions(t, nc, nil), "s", listeners.Position{})
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("the subscription ended")
	timer := time.AfterFunc(100*time.Millisecond, func() { cancel(ended) })
	defer timer.Stop()
	if _, _, err := newPositions(t, nc, nil).Open(ctx, "s"); !errors.Is(err, ended) {
		t.Errorf("Open = %v, want the cause of its context's end", err)
	}
	if err := owner.Close(); err != nil {
		t.Error(err)
	}
}

func TestPositionsRefuse(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jetstream.NewPositions(nc, &jetstream.PositionsOptions{Lease: time.Millisecond, Replicas: -1}); err == nil {
		t.Error("NewPositions with options that cannot work returned no error")
	}
	if _, err := js.CreateKeyValue(t.Context(), natsjs.KeyValueConfig{Bucket: "short", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	_, _, err = newPositions(t, nc, &jetstream.PositionsOptions{Bucket: "short"}).Open(t.Context(), "s")
	if err == nil || !strings.Contains(err.Error(), "forgets its entries after 1h0m0s") {
		t.Errorf("Open in a bucket with a TTL = %v, want an error that says so", err)
	}
	kv, err := js.CreateKeyValue(t.Context(), natsjs.KeyValueConfig{Bucket: "odd"})
	if err != nil {
		t.Fatal(err)
	}
	odd := newPositions(t, nc, &jetstream.PositionsOptions{Bucket: "odd"})
	for _, text := range []string{"17", `{"position":"17"}`} {
		if _, err := kv.PutString(t.Context(), "a-2fb", text); err != nil {
			t.Fatal(err)
		}
		_, _, err := odd.Open(t.Context(), "a/b")
		if err == nil || errors.Is(err, listeners.ErrNameTaken) || !strings.Contains(err.Error(), "delete key a-2fb") {
			t.Errorf("Open of %s = %v, want an error with the key and the remedy", text, err)
		}
	}
	if err := kv.Delete(t.Context(), "a-2fb"); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, odd, "a/b", listeners.Position{}).Close(); err != nil {
		t.Error(err)
	}
}
