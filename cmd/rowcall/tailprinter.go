package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/expression"
	"github.com/rowcall/rowcall/sinks"
)

// A tailPrinter prints stored messages, each on one line.
type tailPrinter struct {
	app     *app
	json    bool
	events  eventPrinter
	printed uint64
	where   *expression.Filter // nil for all
	decoder *sinks.Decoder
}

// newTailPrinter shows dates if the events may be old.
func (a *app) newTailPrinter(asJSON, old bool) *tailPrinter {
	layout := "15:04:05.000"
	if old {
		layout = "2006-01-02 15:04:05.000"
	}
	return &tailPrinter{app: a, json: asJSON, events: eventPrinter{palette: a.palette(a.stdout), layout: layout}, decoder: sinks.NewDecoder()}
}

// print returns an error if the line could not be written, or if the condition
// cannot be decided. A message that is no event is reported on standard error.
func (p *tailPrinter) print(m natsjs.Msg, sequence uint64) error {
	attribute := attributesOf(m.Headers())
	event, err := sinks.Decode(attribute, m.Data())
	if err != nil {
		fmt.Fprintf(p.app.stderr, "sequence %d on %s is not an event: %v\n", sequence, harmless(m.Subject()), err)
		return nil
	}
	if wanted, err := p.wanted(m.Subject(), attribute, m.Data()); err != nil || !wanted {
		return explainWhere(err)
	}
	var line string
	if p.json {
		line = structured(attribute, m.Data())
	} else {
		line = p.events.format(&event)
	}
	if _, err := fmt.Fprintln(p.app.stdout, line); err != nil {
		return err
	}
	p.printed++
	return nil
}

// wanted asks the condition. Resets and live markers are always wanted.
func (p *tailPrinter) wanted(subject string, attribute func(string) string, body []byte) (bool, error) {
	if p.where == nil {
		return true, nil
	}
	part, err := p.decoder.Decode(subject, attribute, body)
	switch {
	case err != nil:
		return false, err
	case part.Kind == listeners.Reset || part.Kind == listeners.Live:
		return true, nil
	}
	return p.where.Match(&part.Event, part.Tx)
}

// attributesOf returns the CloudEvents attributes of a message by name.
func attributesOf(h nats.Header) func(string) string {
	return func(name string) string {
		value := h.Get("ce-" + name)
		if plain, err := sinks.UnescapeHeader(value); err == nil {
			return plain
		}
		return value
	}
}

// structured returns a stored event as one JSON object: a CloudEvent in
// structured mode, in the order of [sinks.AppendCloudEvent].
func structured(attribute func(string) string, body []byte) string {
	var b strings.Builder
	b.WriteByte('{')
	for _, name := range []string{
		"specversion", "id", "source", "type", "subject", "partitionkey", "time", "sequence", "txid", "txend",
	} {
		value := attribute(name)
		if value == "" {
			continue
		}
		if name == "txend" {
			fmt.Fprintf(&b, `"txend":%t,`, value == "true")
			continue
		}
		quoted, err := json.Marshal(value)
		if err != nil {
			continue // cannot happen for a string
		}
		fmt.Fprintf(&b, `"%s":%s,`, name, quoted)
	}
	b.WriteString(`"datacontenttype":"application/json","data":`)
	b.Write(body)
	b.WriteByte('}')
	return b.String()
}
