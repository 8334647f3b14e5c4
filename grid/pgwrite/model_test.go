package pgwrite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A ledger is what the hands of a history know to be committed: each change has
// a name of its own, which is the row's afterwards.
type ledger struct {
	mu        sync.Mutex
	committed map[string]int64 // the key, by name
	refused   map[string]bool  // names that no listener may hear
	deletes   int
	claims    []claim
}

// A claim is that a write of this name, or the delete of this key, is in the
// batch at a position.
type claim struct {
	at   listeners.Position
	name string // "" for a delete
	key  int64
}

func (l *ledger) note(key int64, name string, at listeners.Position, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.refused[name] = true
		return
	case name == "":
		l.deletes++
	default:
		l.committed[name] = key
	}
	if !at.IsZero() {
		l.claims = append(l.claims, claim{at, name, key})
	}
}

var errDrawn = errors.New("as drawn")

// A hand is one of those who write: through a mirror, and beside it in SQL.
type hand struct {
	t     *testing.T
	ctx   context.Context //nolint:containedctx // of one test
	rnd   *rand.Rand
	id    int
	table *pgwrite.Table[int64, train]
	w     *pgwrite.Writer
	sql   *pgx.Conn
	*ledger
}

func (h *hand) run(rounds int) {
	for n := range rounds {
		if err := h.act(fmt.Sprintf("%d-%04d", h.id, n)); err != nil {
			h.t.Errorf("hand %d, round %d: %v", h.id, n, err)
			return
		}
	}
}

// act does one thing, and returns an error that it cannot have.
func (h *hand) act(name string) error {
	k := h.rnd.Int64N(6)
	add := func(v train) (train, error) { return train{Name: name, Sold: v.Sold + 1}, nil }
	switch h.rnd.IntN(12) {
	case 0, 1, 2:
		at, err := h.table.Update(h.ctx, k, add)
		h.note(k, name, at, err)
		return unless(err, grid.ErrNotFound)
	case 3, 4:
		at, err := h.table.Put(h.ctx, k, train{Name: name, Sold: h.rnd.IntN(9)})
		h.note(k, name, at, err)
		return err
	case 5:
		at, err := h.table.Insert(h.ctx, k, train{Name: name})
		h.note(k, name, at, err)
		if _, exists := errors.AsType[*grid.ExistsError](err); exists {
			return nil
		}
		return err
	case 6:
		at, existed, err := h.table.Delete(h.ctx, k)
		if existed {
			h.note(k, "", at, err)
		}
		return err
	case 7: // a veto of the database
		_, err := h.table.Put(h.ctx, k, train{Name: name, Sold: 1000})
		h.note(k, name, listeners.Position{}, err)
		if _, is := errors.AsType[*pgwrite.ConstraintError](err); !is {
			return fmt.Errorf("Put() of what the database refuses = %w, want a ConstraintError", err)
		}
		return nil
	case 8: // two rows or none, which others may take in the other order
		var fail error
		if h.rnd.IntN(2) == 0 {
			fail = errDrawn
		}
		err := h.w.Do(h.ctx, func(tx *pgwrite.Tx) error {
			in := pgwrite.In(tx, h.table)
			return errors.Join(in.Put(k, train{Name: name + "a"}), in.Put((k+1)%6, train{Name: name + "b"}), fail)
		})
		h.note(k, name+"a", listeners.Position{}, err)
		h.note((k+1)%6, name+"b", listeners.Position{}, err)
		return unless(err, fail)
	case 9:
		return h.direct(k, name, "INSERT INTO trains (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", k, name)
	case 10:
		return h.direct(k, "", "DELETE FROM trains WHERE id = $1", k)
	default:
		return h.direct(k, name, "UPDATE trains SET name = $2, sold = sold + 1 WHERE id = $1", k, name)
	}
}

func unless(err, allowed error) error {
	if allowed != nil && errors.Is(err, allowed) {
		return nil
	}
	return err
}

// direct changes a row beside all writers; sometimes that is rolled back.
func (h *hand) direct(k int64, name, sql string, args ...any) error {
	tx, err := h.sql.Begin(h.ctx)
	if err != nil {
		return err
	}
	done, err := tx.Exec(h.ctx, sql, args...)
	if err == nil && h.rnd.IntN(5) == 0 {
		err = tx.Rollback(h.ctx)
		h.note(k, name+" rolled back", listeners.Position{}, errDrawn)
		return err
	}
	err = errors.Join(err, tx.Commit(h.ctx))
	if err == nil && done.RowsAffected() == 1 {
		h.note(k, name, listeners.Position{}, nil)
	}
	return err
}

// A heardRow is what a batch says of a row.
type heardRow struct {
	Name string `json:"name"`
	Sold int    `json:"sold"`
}

func parse(t *testing.T, text string) heardRow {
	t.Helper()
	var r heardRow
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("the row %q: %v", text, err)
	}
	return r
}

// check compares what a listener heard with the ledger, and returns the state
// that it comes to.
func (l *ledger) check(t *testing.T, who string, batches []listenertest.Batch) map[string]heardRow {
	t.Helper()
	state := make(map[string]heardRow)
	heard := make(map[string]string) // key by name
	at := make(map[string]uint64)    // commit by name, or by key and commit for a delete
	last := make(map[string]string)  // name by hand
	var before listeners.Position
	deletes := 0
	for _, b := range batches {
		if b.Kind != listeners.Changes {
			continue
		}
		if b.Position.Compare(before) <= 0 || !b.First || !b.Last {
			t.Errorf("%s heard a batch at %s, first %t, last %t, after %s", who, b.Position, b.First, b.Last, before)
		}
		before = b.Position
		for _, e := range b.Events {
			was, there := state[e.Key]
			if there != (e.Op != listeners.Create) || there && parse(t, e.Before) != was {
				t.Errorf("%s heard %s, where there was %v, %t", who, e, was, there)
			}
			if e.Op == listeners.Delete {
				delete(state, e.Key)
				deletes++
				at[e.Key+"/"+strconv.FormatUint(b.Position.Commit, 10)] = b.Position.Commit
				continue
			}
			row := parse(t, e.After)
			state[e.Key] = row
			if _, twice := heard[row.Name]; twice {
				t.Errorf("%s heard %q twice", who, row.Name)
			}
			heard[row.Name], at[row.Name] = e.Key, b.Position.Commit
			// A hand writes one thing after another.
			if of := row.Name[:2]; row.Name <= last[of] {
				t.Errorf("%s heard %q after %q", who, row.Name, last[of])
			} else {
				last[of] = row.Name
			}
		}
	}
	want := make(map[string]string)
	for name, key := range l.committed {
		want[name] = strconv.FormatInt(key, 10)
	}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("%s (-committed +heard):\n%s", who, diff)
	}
	if deletes != l.deletes {
		t.Errorf("%s heard %d deletes, want %d", who, deletes, l.deletes)
	}
	for name := range l.refused {
		if _, is := heard[name]; is {
			t.Errorf("%s heard %q, which is not committed", who, name)
		}
	}
	for _, c := range l.claims {
		name := c.name
		if name == "" {
			name = fmt.Sprintf("%d/%d", c.key, c.at.Commit)
		}
		if at[name] != c.at.Commit {
			t.Errorf("%s heard %q at commit %d, the write returned %s", who, name, at[name], c.at)
		}
	}
	return state
}

// Two processes, each with a mirror and two hands that write through it, on the
// same few rows, with what the database refuses, transactions that are given up,
// and SQL beside them.
func TestARandomHistoryOfWritersIsHeardAsItWasCommitted(t *testing.T) {
	seedtest.PlaySlow(t, 1, playHands)
}

func playHands(t *testing.T, seed uint64) {
	const rounds = 40
	s := newShop(t, "ALTER TABLE trains ADD CONSTRAINT seats CHECK (sold < 1000)")
	src, err := cdc.New(s.url, &cdc.Options{Tables: []string{"public.trains"}, Slot: s.row(t, "SELECT current_database()") + "_2"})
	if err != nil {
		t.Fatal(err)
	}
	g := grid.New("second", nil)
	second, err := grid.Mirror[int64, train](g, "trains", src.Table("public.trains"), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, src, g)
	if err := second.WaitReady(deadline(t)); err != nil {
		t.Fatal(err)
	}
	regions := []*grid.Region[int64, train]{s.trains, second}
	heard := []*listenertest.Recorder{{}, {}}
	for i, r := range regions {
		if _, err := r.Subscribe("recorder", heard[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	l := &ledger{committed: make(map[string]int64), refused: make(map[string]bool)}
	var hands sync.WaitGroup
	for id := range 4 {
		w := s.writer(t, nil)
		h := &hand{
			t: t, ctx: deadline(t), rnd: rand.New(rand.NewPCG(seed, uint64(id))), id: id, w: w,
			table: bind(t, w, regions[id%2], "public.trains"), sql: pgtest.Connect(t, s.url), ledger: l,
		}
		hands.Go(func() { h.run(rounds) })
	}
	hands.Wait()
	if len(l.committed) < rounds || l.deletes == 0 || len(l.refused) < rounds/4 {
		t.Errorf("%d writes and %d deletes were committed, %d refused: the test tried nothing", len(l.committed), l.deletes, len(l.refused))
	}
	const end = "9-end"
	pgtest.Exec(t, s.url, "INSERT INTO trains (id, name) VALUES (99, '"+end+"')")
	l.committed[end] = 99

	table := make(map[string]heardRow)
	rows, err := pgtest.Connect(t, s.url).Query(deadline(t), "SELECT id::text, name, sold FROM trains")
	if err != nil {
		t.Fatal(err)
	}
	var key string
	var row heardRow
	if _, err := pgx.ForEachRow(rows, []any{&key, &row.Name, &row.Sold}, func() error {
		table[key] = row
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, r := range regions {
		who := fmt.Sprint("the listener of process ", i)
		batches, err := heard[i].Wait(deadline(t), func(b []listenertest.Batch) bool {
			return len(b) > 0 && len(b[len(b)-1].Events) > 0 && b[len(b)-1].Events[0].Key == "99"
		})
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		if state := l.check(t, who, batches); !maps.Equal(state, table) {
			t.Errorf("%s (-table +heard):\n%s", who, cmp.Diff(table, state))
		}
		shown := make(map[string]heardRow)
		for k, v := range r.All() {
			shown[strconv.FormatInt(k, 10)] = heardRow(v)
		}
		if !maps.Equal(shown, table) {
			t.Errorf("process %d (-table +region):\n%s", i, cmp.Diff(table, shown))
		}
	}
}
