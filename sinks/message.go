package sinks

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A Message is an event as a reader of a broker gets it.
type Message struct {
	ID     string
	Source string // such as "postgres/shop"
	// Op is zero for a reset and a live marker.
	Op    listeners.Op
	Reset bool
	Live  bool
	// Collections are those that a reset concerns, nil for all.
	Collections []string
	// Collection is as [listeners.Schema.Collection]; empty for a reset.
	Collection string
	Position   listeners.Position
	Time       time.Time // zero if the source did not say
	TxID       uint64    // 0 in a snapshot
	TxEnd      bool

	// Key, OldKey, Before and After are JSON objects, nil where the body has
	// null or nothing.
	Key    json.RawMessage
	OldKey json.RawMessage
	Before json.RawMessage
	After  json.RawMessage
	// Unchanged names the columns that After lacks because Postgres did not
	// send them.
	Unchanged []string
	// DataRef says where the body is if it was parked, see [TooLargePark]; then
	// Before and After are nil.
	DataRef string
}

// Decode reads a message back. attribute returns the plain value of the
// CloudEvents attribute with this name, "" if it is absent; the caller knows
// how its broker spells and encodes it. Decode keeps nothing of body.
func Decode(attribute func(name string) string, body []byte) (Message, error) {
	var m Message
	m.ID, m.Source = attribute("id"), attribute("source")
	fail := func(what string, err error) (Message, error) {
		return m, fmt.Errorf("sinks: message %q: %s: %w", m.ID, what, err)
	}
	var err error
	if m.Position, err = listeners.ParsePosition(attribute("sequence")); err != nil {
		return fail("sequence", err)
	}
	if s := attribute("time"); s != "" {
		if m.Time, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return fail("time", err)
		}
	}
	if s := attribute("txid"); s != "" {
		if m.TxID, err = strconv.ParseUint(s, 10, 64); err != nil {
			return fail("txid", err)
		}
	}
	m.TxEnd = attribute("txend") == "true"
	collection, _, _ := strings.Cut(attribute("subject"), "/")
	if m.Collection, err = unescape(collection); err != nil {
		return fail("subject", err)
	}

	var b struct {
		Op        string          `json:"op"`
		Key       json.RawMessage `json:"key"`
		OldKey    json.RawMessage `json:"oldkey"`
		Before    json.RawMessage `json:"before"`
		After     json.RawMessage `json:"after"`
		Unchanged []string        `json:"unchanged"`

		Collections []string `json:"collections"`
		DataRef     string   `json:"dataref"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return fail("body", err)
	}
	m.Reset, m.Live = b.Op == "reset", b.Op == "live"
	if !m.Reset && !m.Live {
		if m.Op, err = listeners.ParseOp(b.Op); err != nil {
			return fail("body", err)
		}
	}
	m.Key, m.OldKey, m.Before, m.After = object(b.Key), object(b.OldKey), object(b.Before), object(b.After)
	m.Unchanged, m.Collections, m.DataRef = b.Unchanged, b.Collections, b.DataRef
	return m, nil
}

func object(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}
