package pgwrite_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

var trainSchema = listeners.NewSchema("shop", "public", "trains", []listeners.Column{{Name: "id", Key: true}, {Name: "name"}, {Name: "sold"}})

// A trainRow is id, name and sold as text.
type trainRow [3]string

func (r *trainRow) Schema() *listeners.Schema           { return trainSchema }
func (r *trainRow) State(int) listeners.State           { return listeners.Present }
func (r *trainRow) Text(i int) []byte                   { return []byte(r[i]) }
func (r *trainRow) AppendJSON(dst []byte, i int) []byte { return strconv.AppendQuote(dst, r[i]) }
func (r *trainRow) Scan(i int, dst any) error {
	if s, ok := dst.(*string); ok {
		*s = r[i]
		return nil
	}
	_, err := fmt.Sscan(r[i], dst)
	return err
}

// A script is a source of trains that says what the test tells it to.
type script struct{ feed *listeners.Feed }

func (s script) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	return s.feed.Subscribe(name, l, opts, func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
		at := listeners.Position{Epoch: 1, Commit: 1}
		return at, errors.Join(emit(state(listeners.Reset, at)), emit(state(listeners.Snapshot, at)), emit(state(listeners.Live, at)))
	})
}

// state is a step of a state that is read, with its rows.
func state(kind listeners.Kind, at listeners.Position, rows ...*trainRow) *listeners.Batch {
	b := &listeners.Batch{Kind: kind, Source: "shop", Position: at, First: true, Last: true}
	for _, r := range rows {
		b.Events = append(b.Events, listeners.Event{Op: listeners.Read, Schema: trainSchema, Position: at, After: listeners.NewRecord(r)})
	}
	return b
}

// again tells the whole state at an LSN.
func (s script) again(lsn uint64, rows ...*trainRow) {
	at := listeners.Position{Epoch: 1, Commit: lsn}
	s.feed.Append(state(listeners.Reset, at))
	s.feed.Append(state(listeners.Snapshot, at, rows...))
	s.feed.Append(state(listeners.Live, at))
}

// commit tells a transaction that creates a train.
func (s script) commit(lsn, tx uint64, id int) {
	b := state(listeners.Changes, listeners.Position{Epoch: 1, Commit: lsn}, &trainRow{strconv.Itoa(id), "of the stream", "0"})
	b.Tx.ID, b.Events[0].Op = tx, listeners.Create
	s.feed.Append(b)
}

// nothing tells a transaction that deletes a train which the mirror does not have.
func (s script) nothing(lsn, tx uint64) {
	b := state(listeners.Changes, listeners.Position{Epoch: 1, Commit: lsn}, &trainRow{"8", "", "0"})
	b.Tx.ID, b.Events[0].Op = tx, listeners.Delete
	b.Events[0].OldKey, b.Events[0].After = b.Events[0].After, listeners.Record{}
	s.feed.Append(b)
}

// A noticed is a database that calls a hook when it is asked where its log ends,
// after a commit that is.
type noticed struct {
	pgwrite.DB

	hook func()
	fail error
}

func (d noticed) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if !strings.Contains(sql, "pg_current_wal_insert_lsn") {
		return d.DB.QueryRow(ctx, sql, args...)
	}
	d.hook()
	if d.fail != nil {
		return failedRow{d.fail}
	}
	return d.DB.QueryRow(ctx, sql, args...)
}

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

// What the region shows of other transactions, and of a state that was read
// again, tells that a write has come or will not come.
func TestAWriteIsKnownByWhatFollowsIt(t *testing.T) {
	const far = 1 << 40 // behind any commit of this test
	row := &trainRow{"7", "IC 7", "0"}
	for name, tc := range map[string]struct {
		was  *trainRow                 // that the region shows before; nil for none
		tell func(s script, tx uint64) // after the commit
		then func(s script, tx uint64) // when the end of the log is known
		fail error
		want string // of an UnseenError; "" for none
	}{
		"its own number":                        {tell: func(s script, tx uint64) { s.commit(2, tx, 7) }},
		"half of a number beyond 32 bits":       {tell: func(s script, tx uint64) { s.commit(2, tx+5<<32, 7) }},
		"a state read behind it":                {then: func(s script, _ uint64) { s.again(far, row) }},
		"a state read behind it, heard at once": {tell: func(s script, _ uint64) { s.again(far, row) }},
		"a state read behind it, as it was":     {was: row, then: func(s script, _ uint64) { s.again(far, row) }},
		"the same, heard at once":               {was: row, tell: func(s script, _ uint64) { s.again(far, row) }},
		"a state read before it, as it was":     {was: row, then: func(s script, _ uint64) { s.again(3, row) }, want: "it took too long"},
		"a state read before it":                {tell: func(s script, _ uint64) { s.again(3) }, want: "it took too long"},
		"a later transaction":                   {then: func(s script, tx uint64) { s.commit(far, tx+1, 8) }, want: "nothing of this one"},
		"a later transaction, heard at once":    {tell: func(s script, tx uint64) { s.commit(far, tx+1, 8) }, want: "nothing of this one"},
		"a later one that changes nothing":      {then: func(s script, tx uint64) { s.nothing(far, tx+1) }, want: "nothing of this one"},
		"an earlier transaction":                {tell: func(s script, tx uint64) { s.commit(4, tx-1, 8) }, want: "it took too long"},
		"an earlier one, then its own":          {tell: func(s script, tx uint64) { s.commit(4, tx-1, 8) }, then: func(s script, tx uint64) { s.commit(5, tx, 7) }},
		"a later one, but no LSN to compare":    {tell: func(s script, tx uint64) { s.commit(far, tx+1, 8) }, fail: errors.New("no answer"), want: "it took too long"},
		"its own number, but no LSN to compare": {tell: func(s script, tx uint64) { s.commit(far, tx, 7) }, fail: errors.New("no answer")},
		"a state that is not read to its end": {then: func(s script, _ uint64) {
			s.feed.Append(state(listeners.Reset, listeners.Position{Epoch: 1, Commit: far}))
		}, want: "it took too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			pgtest.Exec(t, url, schema)
			g := grid.New("shop", nil)
			t.Cleanup(func() { _ = g.Close(context.WithoutCancel(t.Context())) })
			s := script{listeners.NewFeed(nil)}
			t.Cleanup(s.feed.Close)
			region, err := grid.Mirror[int64, train](g, "trains", s, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := region.WaitReady(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if tc.was != nil {
				s.again(2, tc.was)
				heard(t, s)
			}
			number := func() (tx uint64) {
				if err := pgtest.Connect(t, url).QueryRow(t.Context(), "SELECT xmin::text::bigint FROM trains WHERE id = 7").Scan(&tx); err != nil {
					t.Error(err)
				}
				return tx
			}
			asked := make(chan struct{})
			db := noticed{DB: pgtest.Connect(t, url), fail: tc.fail, hook: func() {
				if tc.tell != nil {
					tc.tell(s, number())
					heard(t, s)
				}
				close(asked)
			}}
			timeout := 20 * time.Second
			if tc.want == "it took too long" {
				timeout = 300 * time.Millisecond
			}
			w := pgwrite.New(db, &pgwrite.Options{Timeout: timeout})
			t.Cleanup(func() { _ = w.Close(context.WithoutCancel(t.Context())) })
			tab := bind(t, w, region, "public.trains")
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				<-asked
				if tc.then != nil {
					tc.then(s, number())
				}
			}()
			_, err = tab.Put(deadline(t), 7, train{Name: "IC 7"})
			<-ended
			unseen, is := errors.AsType[*pgwrite.UnseenError](err)
			switch {
			case tc.want == "":
				if got, ok := region.Get(7); err != nil || !ok {
					t.Errorf("Put() = %v, and the region has %v, %t; want the row", err, got, ok)
				}
			case !is || unseen.Tx == 0 || !strings.Contains(err.Error(), tc.want):
				t.Errorf("Put() = %v, want an UnseenError with %q", err, tc.want)
			}
		})
	}
}

// heard waits until the mirror has taken what was told, and those who hear it
// had time to.
func heard(t *testing.T, s script) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 4000 {
		<-tick.C
		behind := 0
		for _, sub := range s.feed.Subscriptions() {
			behind += sub.Lag().Batches
		}
		if behind == 0 {
			<-tick.C
			return
		}
	}
	t.Error("the mirror does not take what it is told")
}
