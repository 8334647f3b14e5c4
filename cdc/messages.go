package cdc

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/listeners"
)

// messagesNamespace is that of the schemas of messages.
const messagesNamespace = "_messages"

// ownPrefix begins the prefixes of messages between sources.
const ownPrefix = "rowcall."

// unnamed stands for an empty prefix or aggregate type, which no address could
// hold.
const unnamed = "_"

// prefixes are the entries of Options.Messages.
type prefixes []string

func (p prefixes) want(prefix string) bool {
	if strings.HasPrefix(prefix, ownPrefix) {
		return false
	}
	for _, wanted := range p {
		if begin, all := strings.CutSuffix(wanted, "*"); wanted == prefix || (all && strings.HasPrefix(prefix, begin)) {
			return true
		}
	}
	return false
}

// readMessages checks what the options say of messages and the outbox, and
// returns the faults.
func (c *config) readMessages() (faults []error) {
	for _, p := range c.Messages {
		switch {
		case p == "":
			faults = append(faults, errors.New(`messages: an empty prefix; "*" stands for all`))
		case strings.HasPrefix(p, ownPrefix):
			faults = append(faults, fmt.Errorf("messages %q: prefixes that begin with %q are for this program's own use", p, ownPrefix))
		}
	}
	c.prefixes = c.Messages
	outboxes, outboxFaults := readOutboxes(c.Outbox)
	c.outboxes = outboxes
	if len(c.patterns) > 0 {
		for _, o := range outboxes {
			c.patterns = append(c.patterns, o.table) // it is read, so it is asked for
		}
	}
	return append(faults, outboxFaults...)
}

// A messenger makes events of logical messages.
type messenger struct {
	prefixes prefixes
	known    map[string]*relation // by prefix
}

// maxMessageSchemas bounds what is remembered by prefix or aggregate type.
const maxMessageSchemas = 1024

// OIDs of built-in types.
const (
	textOID  = 25
	byteaOID = 17
)

func (m *messenger) relation(database, prefix string) *relation {
	if rel, ok := m.known[prefix]; ok {
		return rel
	}
	if m.known == nil || len(m.known) >= maxMessageSchemas {
		m.known = make(map[string]*relation)
	}
	name := prefix
	if name == "" {
		name = unnamed
	}
	rel := newRelation(listeners.NewSchema(database, messagesNamespace, name, []listeners.Column{
		{Name: "prefix", TypeID: textOID}, {Name: "content", TypeID: byteaOID}, {Name: "text", TypeID: textOID},
	}), nil)
	m.known[prefix] = rel
	return rel
}

// logical handles a logical message. A transactional one is an event of its
// transaction. Another one comes between transactions and is a batch of its
// own. Its LSN is the end of its record, where a commit record may begin, so its
// commit is the last LSN before that: no transaction's, and in order with those.
func (d *decoder) logical(ctx context.Context, msg []byte) error {
	m, err := pgoutput.ParseMessage(msg)
	if err != nil {
		return messageError{err}
	}
	wanted := d.messages.prefixes.want(m.Prefix)
	if m.Transactional {
		fresh, err := d.next()
		if err != nil || !fresh || !wanted {
			return err
		}
		return d.addMessage(ctx, d.seen, m, len(msg))
	}
	if d.open {
		return messageError{errors.New("a message that belongs to no transaction came inside one")}
	}
	if err := d.boundary(ctx, LSN(m.LSN)); err != nil {
		return err
	}
	at := listeners.Position{Epoch: d.epoch, Commit: m.LSN - 1, Index: 1}
	switch {
	case d.backfills.requested(m.Prefix):
		d.backfills.take(ctx, LSN(m.LSN), m.Content)
		return d.boundary(ctx, LSN(m.LSN))
	case !wanted, at.Compare(d.resume) <= 0:
		d.tracker.nothing(LSN(m.LSN), false)
		return nil
	}
	d.begin(listeners.Changes, listeners.CauseWrite, at.Commit, listeners.Tx{})
	if err := d.addMessage(ctx, at.Index, m, len(msg)); err != nil {
		return err
	}
	if err := d.flush(ctx, true); err != nil {
		return err
	}
	d.tracker.commit(d.last, LSN(m.LSN))
	return nil
}

func (d *decoder) addMessage(ctx context.Context, index uint32, m pgoutput.Message, size int) error {
	text := utf8.Valid(m.Content) && strings.IndexByte(string(m.Content), 0) < 0
	values := [][]byte{[]byte(m.Prefix), append([]byte(`\x`), hex.AppendEncode(nil, m.Content)...), nil}
	if text {
		values[2] = m.Content
	}
	data := make([]byte, pgoutput.Null+1, size+3*len(m.Content)+16)
	cols := make([]uint32, len(values))
	for i, v := range values {
		if cols[i] = pgoutput.Null; i == 2 && !text {
			continue
		}
		cols[i] = uint32(len(data))
		data = append(binary.BigEndian.AppendUint32(data, uint32(len(v))), v...)
	}
	e, err := d.add(ctx, index, len(data))
	if err != nil {
		return err
	}
	rel := d.messages.relation(d.source, m.Prefix)
	e.Op, e.Schema = listeners.Message, rel.schema
	e.After = listeners.NewRecord(d.newRow(row{rel: rel, data: data, cols: cols}))
	return nil
}
