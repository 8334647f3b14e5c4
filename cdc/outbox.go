package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/listeners"
)

// An Outbox is a table to which an application writes messages, in the same
// transaction as the changes that they are about. Each row that is inserted is
// an event with [listeners.Message]; its collection is "_messages." and the
// aggregate type ("_" if that is empty or null), its key the aggregate's id, and
// its columns are id, aggregateid, type and payload, with the types that they
// have in the table. What becomes of the row afterwards is not told: it may be
// deleted at once, even by the same transaction. Rows that a snapshot finds are
// told, since nobody has heard of them.
//
// The other fields are the names of columns; the defaults are those of
// Debezium's outbox router.
type Outbox struct {
	Table         string // "schema.table", published like any other
	ID            string // of the message; default "id"
	AggregateType string // what the message is about, such as "order"; default "aggregatetype"
	AggregateID   string // which one; default "aggregateid"
	Type          string // what happened; default "type"
	Payload       string // default "payload"
}

// An outboxTable is an Outbox whose names were read.
type outboxTable struct {
	table         pattern
	aggregateType string
	columns       [4]string // id, aggregateid, type, payload
}

// The columns of an outbox's messages.
var outboxColumns = [4]string{"id", "aggregateid", "type", "payload"}

func readOutboxes(outboxes []Outbox) (tables []outboxTable, faults []error) {
	for _, o := range outboxes {
		p, err := parsePattern(o.Table)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("outbox: %w", err))
		case p.all:
			faults = append(faults, fmt.Errorf("outbox %q: name one table", o.Table))
		case slices.ContainsFunc(tables, func(t outboxTable) bool { return t.table == p }):
			faults = append(faults, fmt.Errorf("outbox %q: it is there twice", o.Table))
		}
		tables = append(tables, outboxTable{
			table:         p,
			aggregateType: cmp.Or(o.AggregateType, "aggregatetype"),
			columns:       [4]string{cmp.Or(o.ID, "id"), cmp.Or(o.AggregateID, "aggregateid"), cmp.Or(o.Type, "type"), cmp.Or(o.Payload, "payload")},
		})
	}
	return tables, faults
}

// names are those of all columns, each once.
func (t *outboxTable) names() []string {
	names := append([]string{t.aggregateType}, t.columns[:]...)
	slices.Sort(names)
	return slices.Compact(names)
}

// outboxOf returns what makes messages of a table's rows, nil if it is no
// outbox.
func outboxOf(outboxes []outboxTable, schema *listeners.Schema, described types) (*outbox, error) {
	i := slices.IndexFunc(outboxes, func(t outboxTable) bool { return t.table.matches(schema.Namespace, schema.Name) })
	if i < 0 {
		return nil, nil //nolint:nilnil // most tables are no outbox
	}
	t := &outboxes[i]
	o := &outbox{database: schema.Source, name: schema.Index(t.aggregateType), described: described}
	missing := o.name < 0
	for i, name := range t.columns {
		at := schema.Index(name)
		if missing = missing || at < 0; missing {
			break
		}
		o.from[i] = at
		o.columns[i] = listeners.Column{Name: outboxColumns[i], TypeID: schema.Columns[at].TypeID, Key: i == 1}
	}
	if missing {
		var has []string
		for _, c := range schema.Columns {
			has = append(has, c.Name)
		}
		return nil, &SetupError{Findings: []Finding{*t.lacking(has)}}
	}
	return o, nil
}

// An outbox makes messages of the rows of one version of a table. It may be
// used by several goroutines.
type outbox struct {
	database  string
	described types
	name      int    // the column with the aggregate type
	from      [4]int // the table's columns, in the order of the message's
	columns   [4]listeners.Column

	mu    sync.Mutex
	known map[string]*relation // by aggregate type
}

func (o *outbox) relation(name string) *relation {
	o.mu.Lock()
	defer o.mu.Unlock()
	if rel, ok := o.known[name]; ok {
		return rel
	}
	if o.known == nil || len(o.known) >= maxMessageSchemas {
		o.known = make(map[string]*relation)
	}
	rel := newRelation(listeners.NewSchema(o.database, messagesNamespace, name, slices.Clone(o.columns[:])), o.described)
	o.known[name] = rel
	return rel
}

// message turns an event into the message that a row of the table is, and
// returns its row. The caller makes that the event's.
func (o *outbox) message(e *listeners.Event, r row) row {
	name := string(r.Text(o.name))
	if name == "" {
		name = unnamed
	}
	m := row{rel: o.relation(name), data: r.data, cols: make([]uint32, len(o.from))}
	for i, from := range o.from {
		m.cols[i] = r.cols[from]
	}
	e.Op, e.Schema = listeners.Message, m.rel.schema
	return m
}

// outboxRow handles a change of an outbox: its inserts are messages, all else
// is the application's own business.
func (d *decoder) outboxRow(ctx context.Context, rel *relation, msg []byte, values []uint32) error {
	if msg[0] != pgoutput.TypeInsert {
		return nil
	}
	if values == nil {
		return messageError{errors.New("an insert without a row")}
	}
	e, err := d.add(ctx, d.seen, len(msg))
	if err != nil {
		return err
	}
	e.After = listeners.NewRecord(d.newRow(rel.outbox.message(e, row{rel: rel, data: msg, cols: values})))
	return nil
}

// aboutMessages reports whether a subscription to these collections may want
// the rows of an outbox.
func aboutMessages(collections []string) bool {
	return slices.ContainsFunc(collections, func(c string) bool { return strings.HasPrefix(c, messagesNamespace+".") })
}

// isOutbox reports whether a table's rows are messages.
func (c *config) isOutbox(schema, table string) bool {
	return slices.ContainsFunc(c.outboxes, func(t outboxTable) bool { return t.table.matches(schema, table) })
}
