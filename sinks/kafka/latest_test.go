package kafka_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

const notesTopic = "latest.shop.public.notes"

var notes = listeners.NewSchema(sinktest.Database, "public", "notes", []listeners.Column{
	{Name: "title", Type: "text", Key: true}, {Name: "body", Type: "text"},
})

// toasted is a body that Postgres did not send.
const toasted = "<toasted>"

// A note is a row.
type note struct{ title, body string }

func (n note) Schema() *listeners.Schema { return notes }

func (n note) State(i int) listeners.State {
	if i == 1 && n.body == toasted {
		return listeners.Unchanged
	}
	return listeners.Present
}

func (n note) Text(i int) []byte { return []byte([]string{n.title, n.body}[i]) }

func (n note) AppendJSON(dst []byte, i int) []byte {
	return fmt.Appendf(dst, "%q", n.Text(i))
}

func (n note) Scan(int, any) error { return errors.ErrUnsupported }

func rowOf(title, body string) listeners.Record { return listeners.NewRecord(note{title, body}) }

func create(title, body string) listeners.Event {
	return listeners.Event{Op: listeners.Create, Schema: notes, After: rowOf(title, body)}
}

func update(old, title, body string) listeners.Event {
	e := listeners.Event{Op: listeners.Update, Schema: notes, After: rowOf(title, body)}
	if old != title {
		e.OldKey = rowOf(old, toasted)
	}
	return e
}

func remove(title string) listeners.Event {
	return listeners.Event{Op: listeners.Delete, Schema: notes, OldKey: rowOf(title, toasted)}
}

func truncate() listeners.Event { return listeners.Event{Op: listeners.Truncate, Schema: notes} }

// transaction numbers its events.
func transaction(commit uint64, events ...listeners.Event) *listeners.Batch {
	b := sinktest.Transaction(commit, 0)
	b.Position = sinktest.At(commit, uint32(max(len(events)-1, 0)))
	for i := range events {
		events[i].Position = sinktest.At(commit, uint32(i))
	}
	b.Events = events
	return b
}

// snapshot is what a source says that begins anew.
func snapshot(commit uint64, rows map[string]string) []*listeners.Batch {
	b := transaction(commit, slices.Collect(func(yield func(listeners.Event) bool) {
		for _, title := range slices.Sorted(maps.Keys(rows)) {
			e := create(title, rows[title])
			e.Op, e.Cause = listeners.Read, listeners.CauseSnapshot
			if !yield(e) {
				return
			}
		}
	})...)
	b.Kind, b.Tx.ID = listeners.Snapshot, 0
	for i := range b.Events {
		b.Events[i].Position.Index++
	}
	b.Position.Index++
	return []*listeners.Batch{sinktest.Reset(commit), b, sinktest.Live(commit)}
}

func tryLatest(t testing.TB, c *cluster, opts kafka.Options) (*sinks.Firehose, error) {
	t.Helper()
	opts.Partitions = partitions
	f, err := kafka.NewLatest(c.url(), sinktest.Database, &opts)
	if err != nil {
		t.Fatalf("NewLatest: %v", err)
	}
	t.Cleanup(f.Close)
	return f, f.Open(t.Context())
}

func latest(t testing.TB, c *cluster, opts kafka.Options) *sinks.Firehose {
	t.Helper()
	f, err := tryLatest(t, c, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return f
}

// lastValues returns what a reader has that keeps the last value of each key: bodies
// by title.
func lastValues(t testing.TB, c *cluster, topic string) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	for _, r := range records(t, c, topic) {
		key := string(r.Key)
		if want := sinks.Partition("public.notes", r.Key, partitions); r.Partition != int32(want) {
			t.Errorf("key %q is in partition %d, want %d", key, r.Partition, want)
		}
		if r.Value == nil {
			delete(rows, key)
			continue
		}
		var body struct {
			Before, OldKey *struct{}
			Key            struct{ Title string }
			After          struct{ Title, Body string }
		}
		if err := json.Unmarshal(r.Value, &body); err != nil || body.Before != nil || body.OldKey != nil || body.Key.Title != body.After.Title {
			t.Errorf("value of %q = %s, %v; want one without before and oldkey", key, r.Value, err)
		}
		rows[key] = body.After.Title + "=" + body.After.Body
	}
	return rows
}

func wantTable(t testing.TB, c *cluster, what string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, lastValues(t, c, notesTopic)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestWhoeverKeepsTheLastValueOfEachKeyHasTheTable(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := latest(t, c, kafka.Options{})
	store(t, f, []*listeners.Batch{
		transaction(1, create("a", "1"), create("b", "2"), create("", "3"), create("x/y z", "4")),
		transaction(2, remove("a"), update("b", "c", "5"), update("", "", "6")),
	})
	wantTable(t, c, "the table", map[string]string{"c": "c=5", "": "=6", "x%2Fy%20z": "x/y z=4"})

	of := func(key string) (lines []string) {
		for _, r := range records(t, c, notesTopic) {
			if string(r.Key) == key {
				lines = append(lines, string(r.Value))
				for _, h := range r.Headers {
					switch h.Key {
					case "ce_type", "ce_id", "ce_subject", "ce_partitionkey", "rowcall-part":
						lines[len(lines)-1] += " " + h.Key + "=" + string(h.Value)
					}
				}
			}
		}
		return lines
	}
	id := func(commit uint64, index uint32) string {
		return "postgres/shop/" + sinktest.At(commit, index).String()
	}
	want := []string{
		`{"op":"create","key":{"title":"b"},"before":null,"after":{"title":"b","body":"2"}} ce_type=rowcall.create.v1 ce_id=` + id(1, 1) + ` ce_subject=public.notes/b ce_partitionkey=public.notes/b`,
		` ce_type=rowcall.delete.v1 ce_id=` + id(2, 1) + ` ce_subject=public.notes/b ce_partitionkey=public.notes/b rowcall-part=true`,
	}
	if diff := cmp.Diff(want, of("b")); diff != "" {
		t.Errorf("records of a key that was changed (-want +got):\n%s", diff)
	}
	want = []string{`{"op":"create","key":{"title":"c"},"before":null,"after":{"title":"c","body":"5"}} ce_type=rowcall.create.v1 ce_id=` + id(2, 1) + ` ce_subject=public.notes/c ce_partitionkey=public.notes/c`}
	if diff := cmp.Diff(want, of("c")); diff != "" {
		t.Errorf("records of the new key (-want +got):\n%s", diff)
	}

	store(t, f, []*listeners.Batch{transaction(3, create("d", "7"), truncate(), create("a", "8"))})
	wantTable(t, c, "after a truncate", map[string]string{"a": "a=8"})
	gone := of("x%2Fy%20z")
	if want := ` ce_type=rowcall.delete.v1 ce_id=` + id(3, 1) + ` ce_subject=public.notes/x%2Fy%20z ce_partitionkey=public.notes/x%2Fy%20z rowcall-part=swept`; len(gone) != 2 || gone[1] != want {
		t.Errorf("records of a truncated key = %q, want a tombstone %q at the end", gone, want)
	}
	if n := len(of("b")); n != 2 {
		t.Errorf("%d records of a key that was deleted before the truncate, want 2 or a superfluous tombstone", n)
	}

	store(t, f, snapshot(4, map[string]string{"e": "9"}))
	wantTable(t, c, "after a reset", map[string]string{"e": "e=9"})
	before := len(records(t, c, notesTopic))
	store(t, f, []*listeners.Batch{transaction(5, truncate()), transaction(6, truncate())})
	if n := len(records(t, c, notesTopic)) - before; n != 1 {
		t.Errorf("a truncate of a row, and one of nothing, stored %d records, want 1", n)
	}
	c.Compact()
	wantTable(t, c, "after all is truncated", map[string]string{})
}

// A history is what happens to a table, and what it then has.
func history(r *rand.Rand, commits int) (batches []*listeners.Batch, rows map[string]string) {
	rows = make(map[string]string)
	titles := func() string { return []string{"", "%", "é"}[r.IntN(3)] + string(rune('a'+r.IntN(20))) }
	for commit := uint64(1); commit <= uint64(commits); commit++ {
		if r.IntN(40) == 0 || commit == 1 {
			batches = append(batches, snapshot(commit, rows)...)
			continue
		}
		var events []listeners.Event
		for range 1 + r.IntN(30) {
			title, body := titles(), fmt.Sprintf("%d", r.IntN(1000))
			_, held := rows[title]
			to := titles()
			_, taken := rows[to]
			switch {
			case r.IntN(150) == 0:
				events = append(events, truncate())
				clear(rows)
			case !held:
				events = append(events, create(title, body))
				rows[title] = body
			case r.IntN(3) == 0:
				events = append(events, remove(title))
				delete(rows, title)
			case r.IntN(3) == 0 && !taken:
				events = append(events, update(title, to, body))
				delete(rows, title)
				rows[to] = body
			default:
				events = append(events, update(title, title, body))
				rows[title] = body
			}
		}
		b := transaction(commit, events...)
		if r.IntN(5) == 0 && len(events) > 1 {
			batches = append(batches, sinktest.Parts(b, 1+r.IntN(len(events)-1))...)
			continue
		}
		batches = append(batches, b)
	}
	return batches, rows
}

func keyed(rows map[string]string) map[string]string {
	want := make(map[string]string)
	for title, body := range rows {
		e := create(title, body)
		want[e.Key().String()] = title + "=" + body
	}
	return want
}

// Each process takes up where the one before it died, is told everything from
// the beginning, and stores only what is missing.
func TestLatestStateSurvivesCrashesAndCompaction(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]kafka.Options{
		"transactions":    {},
		"no transactions": {NoTransactions: true},
		"little memory":   {MaxPendingBytes: 1500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			r := random(t, 20)
			batches, rows := history(r, 200)
			const lives = 6
			ended := 0
			for i := 1; i <= lives; i++ {
				w := new(suiteWire)
				o := opts
				o.Client = []kgo.Opt{kgo.Dialer(w.dial)}
				f := latest(t, c, o)
				until := batches[:len(batches)*i/lives]
				err := sinktest.Feed(t.Context(), f, until)
				if err == nil && (i == lives || i%3 == 0) {
					err = f.Flush(t.Context())
				}
				if errors.Is(err, kerr.OutOfOrderSequenceNumber) && ended < 3 {
					// The fake brokers say so, rarely, on a busy machine. It ends
					// the process, and the next one goes on.
					t.Logf("life %d ended: %v", i, err)
					ended++
					i--
				} else if err != nil {
					t.Fatal(err)
				}
				if i < lives {
					w.kill() // what it has in flight is lost
				}
				f.Close()
				c.Compact()
			}
			wantTable(t, c, "the table", keyed(rows))
		})
	}
}

// neighbour returns another title in the same partition.
func neighbour(title string) string {
	of := func(title string) int { return sinks.Partition("public.notes", []byte(title), partitions) }
	for n := 0; ; n++ {
		if other := fmt.Sprintf("%s-%d", title, n); of(other) == of(title) {
			return other
		}
	}
}

// A process dies at every produce request of a truncate and of updates of keys.
func TestLatestStateIsCompleteAfterACrashWithinAnEvent(t *testing.T) {
	t.Parallel()
	within := 0
	for refused := range 40 {
		c := run(t)
		opts := kafka.Options{NoTransactions: true, MaxPendingBytes: 1}
		begin := transaction(1)
		for i := range 8 {
			begin.Events = append(begin.Events, create(fmt.Sprintf("old%d", i), "1"))
		}
		begin = transaction(1, begin.Events...)
		var moves []listeners.Event
		want := make(map[string]string)
		for i := range 8 {
			old := fmt.Sprintf("from%d", i)
			title := neighbour(old)
			moves = append(moves, create(old, "2"), update(old, title, "3"))
			want[title] = title + "=3"
		}
		batches := []*listeners.Batch{begin, transaction(2, append([]listeners.Event{truncate()}, moves...)...)}
		f := latest(t, c, opts)
		store(t, f, batches[:1])

		n, healthy := 0, new(atomic.Bool)
		c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			if n++; n <= refused || healthy.Load() {
				return nil, nil, false
			}
			produce, ok := req.(*kmsg.ProduceRequest)
			if !ok {
				return nil, nil, false
			}
			resp, ok := produce.ResponseKind().(*kmsg.ProduceResponse)
			if !ok {
				return nil, nil, false
			}
			for _, rt := range produce.Topics {
				st := kmsg.NewProduceResponseTopic()
				st.Topic, st.TopicID = rt.Topic, rt.TopicID
				for _, rp := range rt.Partitions {
					sp := kmsg.NewProduceResponseTopicPartition()
					sp.Partition, sp.ErrorCode = rp.Partition, kerr.MessageTooLarge.Code
					st.Partitions = append(st.Partitions, sp)
				}
				resp.Topics = append(resp.Topics, st)
			}
			return resp, nil, true
		})
		err := sinktest.Feed(t.Context(), f, batches[1:])
		if err == nil {
			err = f.Flush(t.Context())
		}
		f.Close()
		healthy.Store(true)
		if err == nil {
			if within < 20 {
				t.Errorf("%d crashes within the transaction, want 20 at least", within)
			}
			return
		}
		within++
		store(t, latest(t, c, opts), batches)
		wantTable(t, c, fmt.Sprintf("after %d produce requests", refused), want)
	}
	t.Error("it never came to the end")
}

func TestLatestStateRefuses(t *testing.T) {
	t.Parallel()
	keyless := listeners.NewSchema(sinktest.Database, "public", "log", []listeners.Column{{Name: "line"}})
	for name, tc := range map[string]struct {
		batch *listeners.Batch
		want  string
		place string
	}{
		"a table without a key": {transaction(2, listeners.Event{Op: listeners.Create, Schema: keyless}), "has no key", "topic latest.shop.public.log"},
		"columns that were not sent": {
			transaction(2, update("a", "a", toasted)), "did not send the columns body, which did not change, and Kafka cannot be asked for them; ALTER TABLE ... REPLICA IDENTITY FULL", "topic " + notesTopic,
		},
		"a truncate of another database": {
			transaction(2, listeners.Event{Op: listeners.Truncate, Schema: listeners.NewSchema("other", "public", "notes", nil)}), "does not belong", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := run(t)
			f := latest(t, c, kafka.Options{})
			store(t, f, []*listeners.Batch{transaction(1, create("a", "1"))})
			err := f.OnBatch(t.Context(), tc.batch)
			var refused *sinks.PlaceError
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &refused) != (tc.place != "") || refused != nil && refused.Place != tc.place {
				t.Errorf("OnBatch = %v, want an error of %q with %q", err, tc.place, tc.want)
			}
			if err := f.OnBatch(t.Context(), transaction(3)); err == nil {
				t.Error("OnBatch after that = nil, want the error again")
			}
			wantTable(t, c, "the table", map[string]string{"a": "a=1"})
		})
	}
	for name, opts := range map[string]kafka.Options{"Retention": {Retention: time.Hour}, "TooLargePark": {TooLarge: sinks.TooLargePark}} {
		if _, err := kafka.NewLatest("kafka://localhost", "shop", &opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("NewLatest with %s = %v, want an error that names it", name, err)
		}
	}
}

func TestLatestStateNeedsCompactedTopics(t *testing.T) {
	t.Parallel()
	for policy, fits := range map[string]bool{"delete": false, "compact,delete": false, "compact": true} {
		t.Run(policy, func(t *testing.T) {
			c := run(t)
			if err := c.CreateTopic(notesTopic, partitions, map[string]string{"cleanup.policy": policy}); err != nil {
				t.Fatal(err)
			}
			f, err := tryLatest(t, c, kafka.Options{})
			if !fits {
				wantTopicError(t, err, fmt.Sprintf("its cleanup.policy is %q", policy))
				return
			}
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			store(t, f, []*listeners.Batch{transaction(1, create("a", "1"))})
			wantTable(t, c, "the table", map[string]string{"a": "a=1"})
		})
	}
	c := run(t)
	store(t, latest(t, c, kafka.Options{}), []*listeners.Batch{transaction(1, create("a", "1"))})
	if p := c.TopicInfo(notesTopic).Configs["cleanup.policy"]; p == nil || *p != "compact" {
		t.Errorf("cleanup.policy of the topic that was made = %v, want compact", p)
	}
}

// With REPLICA IDENTITY FULL the old row has what the new one lacks.
func TestLatestStateHasColumnsOfTheOldRow(t *testing.T) {
	t.Parallel()
	c := run(t)
	full := update("a", "b", toasted)
	full.Before = rowOf("a", "large")
	store(t, latest(t, c, kafka.Options{}), []*listeners.Batch{transaction(1, create("a", "large")), transaction(2, full)})
	wantTable(t, c, "the table", map[string]string{"b": "b=large"})
}

// A transaction without a truncate is visible at its end.
func TestLatestStateOfATransactionIsVisibleAtItsEnd(t *testing.T) {
	t.Parallel()
	c := run(t)
	f := latest(t, c, kafka.Options{})
	parts := sinktest.Parts(transaction(2, create("a", "1"), create("b", "2")), 1)
	store(t, f, []*listeners.Batch{transaction(1, create("c", "3"))})
	if err := f.OnBatch(t.Context(), parts[0]); err != nil {
		t.Fatal(err)
	}
	wantTable(t, c, "before the end", map[string]string{"c": "c=3"})
	store(t, f, parts[1:])
	wantTable(t, c, "at the end", map[string]string{"a": "a=1", "b": "b=2", "c": "c=3"})
}

// The writer of the latest state fences its predecessor, and nobody who writes the history.
func TestLatestStateHasOneWriter(t *testing.T) {
	t.Parallel()
	c := run(t)
	log := open(t, c, nil)
	first := latest(t, c, kafka.Options{})
	store(t, first, []*listeners.Batch{transaction(1, create("a", "1"))})
	second := latest(t, c, kafka.Options{})
	store(t, second, []*listeners.Batch{transaction(1, create("a", "1")), transaction(2, create("b", "2"))})
	store(t, log, []*listeners.Batch{sinktest.Transaction(1, 5)})
	err := first.OnBatch(t.Context(), transaction(2, create("b", "2")))
	if err == nil {
		err = first.Flush(t.Context())
	}
	if _, fenced := errors.AsType[*sinks.FencedError](err); !fenced {
		t.Errorf("the first writer = %v, want a FencedError", err)
	}
	wantTable(t, c, "the table", map[string]string{"a": "a=1", "b": "b=2"})
}

// What a truncate has to read is read in the end, whatever happens to brokers and
// connections.
func TestLatestStateIsTruncatedWhileBrokersFail(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kfake.Fault{
		"ends are not known":     {Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition, Count: 6},
		"nothing can be read":    {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: 6},
		"a disk is out of order": {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run(t)
			w := new(suiteWire)
			f := latest(t, c, kafka.Options{Client: []kgo.Opt{kgo.Dialer(w.dial)}})
			var events []listeners.Event
			for i := range 100 {
				events = append(events, create(fmt.Sprint(i), "1"))
			}
			store(t, f, []*listeners.Batch{transaction(1, events...)})
			c.ShufflePartitionLeaders()
			injected := c.Fault(fault)
			w.lose.Store(5)
			store(t, f, []*listeners.Batch{transaction(2, truncate(), create("a", "1"))})
			injected.Remove()
			wantTable(t, c, "the table", map[string]string{"a": "a=1"})
		})
	}
}
