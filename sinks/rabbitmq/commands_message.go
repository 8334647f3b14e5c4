package rabbitmq

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// Headers of commands, besides the CloudEvents attributes.
const (
	headerExpires   = "Rowcall-Expires"
	headerNotBefore = "Rowcall-Not-Before"
	// headerAttempts counts the attempts that were begun before the message was
	// stored anew for the next. The queue counts the others: see attempts.
	headerAttempts = "Rowcall-Attempts"

	headerDeadReason   = "Rowcall-Dead-Reason"
	headerDeadError    = "Rowcall-Dead-Error"
	headerDeadAttempts = "Rowcall-Dead-Attempts"
	headerDeadWorker   = "Rowcall-Dead-Worker"
	headerDeadTime     = "Rowcall-Dead-Time"
	headerDeadOrigin   = "Rowcall-Dead-Origin"
	headerDeadID       = "Rowcall-Dead-Id"

	headerReplyFailed   = "Rowcall-Failed"
	headerReplyError    = "Rowcall-Error"
	headerReplyAttempts = "Rowcall-Attempts"

	// headerTaken keeps a command's own header whose name means something to
	// the server.
	headerTaken = "Rowcall-Header-"
	// headerDeliveries is how often a quorum queue has delivered a message
	// before, without its end.
	headerDeliveries = "x-delivery-count"

	attributePrefix = "cloudEvents:"
	commandType     = "rowcall.command.v1"

	// maxHeader is less than the smallest frame that servers agree to by
	// default (128 KiB): all headers have to be in one frame.
	maxHeader = 100 << 10
	// maxShort is the length of a header's name in AMQP.
	maxShort = 255
)

// ofServer reports whether the server reads or writes a header: it would route
// copies by CC and BCC, and what begins with x- is of queues.
func ofServer(name string) bool {
	lower := strings.ToLower(name)
	return lower == "cc" || lower == "bcc" || strings.HasPrefix(lower, "x-d") || strings.HasPrefix(lower, "x-first-death") ||
		strings.HasPrefix(lower, "x-last-death") || strings.HasPrefix(lower, "x-acquired") || strings.HasPrefix(lower, "x-opt-") ||
		strings.HasPrefix(lower, strings.ToLower(attributePrefix))
}

// storedID identifies what one Publish stores, over all its attempts. The same
// sending, done again because its confirmation was lost, has the same.
func storedID(e *sinks.CommandEnvelope) string {
	sum := sha256.Sum256([]byte(e.Queue + "\x00" + e.Dedupe))
	return hex.EncodeToString(sum[:12])
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// putEnvelope makes a message of a command.
func putEnvelope(e *sinks.CommandEnvelope) amqp.Publishing {
	h := make(amqp.Table, len(e.Headers)+8)
	for name, value := range e.Headers {
		if ofServer(name) {
			name = headerTaken + name
		}
		h[name] = value
	}
	set := func(name, value string) {
		if value != "" {
			h[name] = value
		}
	}
	set(attributePrefix+"specversion", sinks.SpecVersion)
	set(attributePrefix+"type", commandType)
	set(attributePrefix+"id", e.ID)
	set(attributePrefix+"source", e.Sender)
	set(attributePrefix+"subject", e.Queue+"/"+e.Name)
	set(attributePrefix+"time", timeText(e.Sent))
	set(headerExpires, timeText(e.Expires))
	set(headerNotBefore, timeText(e.At))
	return amqp.Publishing{
		Headers: h, Body: e.Body, DeliveryMode: amqp.Persistent, MessageId: storedID(e), Type: e.Name,
		ReplyTo: e.ReplyTo, CorrelationId: e.Call, Timestamp: e.Sent,
	}
}

// headerSize is about what a message's properties take in its header frame.
func headerSize(m *amqp.Publishing) int {
	size := 200 + len(m.ReplyTo) + len(m.CorrelationId) + len(m.Type)
	for name, value := range m.Headers {
		size += len(name) + 10
		if text, ok := value.(string); ok {
			size += len(text)
		}
	}
	return size
}

// text returns a header as text; a number that some other client sent, too.
func text(h amqp.Table, name string) string {
	switch v := h[name].(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil, amqp.Table, []any:
		return ""
	default:
		return fmt.Sprint(v)
	}
}

// number returns a header that counts, 0 if it is none.
func number(h amqp.Table, name string) int {
	n, err := strconv.Atoi(text(h, name))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// A stored is a message as the server delivers it, from a queue of commands or
// of dead letters.
type stored struct {
	queue string
	*amqp.Delivery
}

// ref identifies a message, also one of a sender that gave it no id.
func (m stored) ref() string {
	if m.MessageId != "" {
		return m.MessageId
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s", m.Type, m.CorrelationId, m.Timestamp.Unix(), m.Body))
	return "x" + hex.EncodeToString(sum[:12])
}

// attempts returns how often the command was delivered before: by the queue it
// is in, and in earlier stays there.
func (m stored) attempts() int {
	return number(m.Headers, headerAttempts) + number(m.Headers, headerDeliveries)
}

// envelope reads a command, whoever sent it: only a name, as the message's
// type, and the body have to be there.
func (m stored) envelope() (*sinks.CommandEnvelope, error) {
	e := &sinks.CommandEnvelope{Command: sinks.Command{Queue: m.queue, Name: m.Type, Body: m.Body}, ReplyTo: m.ReplyTo, Call: m.CorrelationId}
	var fault error
	parse := func(name string) time.Time {
		v := text(m.Headers, name)
		if v == "" {
			return time.Time{}
		}
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil && fault == nil {
			fault = fmt.Errorf("header %s: %w", name, err)
		}
		return t
	}
	for name := range m.Headers {
		own, taken := strings.CutPrefix(name, headerTaken)
		if !taken && (sinks.ReservedHeader(name) || ofServer(name)) {
			continue
		}
		if e.Headers == nil {
			e.Headers = make(map[string]string)
		}
		e.Headers[own] = text(m.Headers, name)
	}
	if e.ID = text(m.Headers, attributePrefix+"id"); e.ID == "" {
		e.ID = m.ref()
	}
	e.Sender, e.Sent = text(m.Headers, attributePrefix+"source"), parse(attributePrefix+"time")
	if e.Sender == "" {
		e.Sender = m.AppId
	}
	if e.Sent.IsZero() {
		e.Sent = m.Timestamp
	}
	e.Expires, e.At = parse(headerExpires), parse(headerNotBefore)
	if fault == nil {
		fault = e.Validate()
	}
	return e, fault
}

// again returns the message to store anew, without what the server has added.
func (m stored) again() amqp.Publishing {
	h := make(amqp.Table, len(m.Headers)+2)
	for name, value := range m.Headers {
		if !ofServer(name) || strings.HasPrefix(name, attributePrefix) {
			h[name] = value
		}
	}
	return amqp.Publishing{
		Headers: h, Body: m.Body, DeliveryMode: amqp.Persistent, MessageId: m.ref(), Type: m.Type, ContentType: m.ContentType,
		ContentEncoding: m.ContentEncoding, ReplyTo: m.ReplyTo, CorrelationId: m.CorrelationId, Timestamp: m.Timestamp, AppId: m.AppId,
	}
}

// putDead adds what became of a command.
func putDead(m *amqp.Publishing, d *sinks.DeadLetter, origin, id string) {
	for name, value := range map[string]string{
		headerDeadReason: string(d.Reason), headerDeadError: d.Error, headerDeadAttempts: strconv.Itoa(d.Attempts),
		headerDeadWorker: d.Worker, headerDeadTime: timeText(d.Time), headerDeadOrigin: origin, headerDeadID: id,
	} {
		m.Headers[name] = value
	}
}

// dead reads a dead letter. One that no worker buried was given up by the
// server, which says so in x-death.
func (m stored) dead(origin string) sinks.DeadCommand {
	// What was no command is a dead letter because of that.
	env, _ := m.envelope()
	d := sinks.DeadCommand{Ref: m.ref(), Origin: text(m.Headers, headerDeadOrigin), Envelope: *env}
	if id := text(m.Headers, headerDeadID); id != "" {
		d.Envelope.ID = id
	}
	d.Dead.Reason, d.Dead.Error = sinks.DeadReason(text(m.Headers, headerDeadReason)), text(m.Headers, headerDeadError)
	d.Dead.Attempts = number(m.Headers, headerDeadAttempts)
	d.Dead.Worker = text(m.Headers, headerDeadWorker)
	d.Dead.Time, _ = time.Parse(time.RFC3339Nano, text(m.Headers, headerDeadTime))
	if d.Dead.Reason != "" {
		return d
	}
	d.Origin, d.Dead.Reason, d.Dead.Worker = origin, sinks.DeadUndeliverable, "rabbitmq"
	reason := text(m.Headers, "x-first-death-reason")
	if deaths, ok := m.Headers["x-death"].([]any); ok && len(deaths) > 0 {
		if last, ok := deaths[0].(amqp.Table); ok {
			reason = text(last, "reason")
			d.Dead.Time, _ = last["time"].(time.Time)
		}
	}
	d.Dead.Attempts = m.attempts()
	d.Dead.Error = fmt.Sprintf("the server gave it up (%s)", reason)
	return d
}

func putReply(r *sinks.CommandReply) amqp.Publishing {
	m := amqp.Publishing{Headers: amqp.Table{}, Body: r.Body, CorrelationId: r.Call}
	if r.Failed != "" {
		m.Headers[headerReplyFailed], m.Headers[headerReplyError] = string(r.Failed), r.Error
		m.Headers[headerReplyAttempts] = strconv.Itoa(r.Attempts)
	}
	return m
}

func getReply(m *amqp.Delivery) sinks.CommandReply {
	return sinks.CommandReply{
		Call: m.CorrelationId, Body: m.Body, Failed: sinks.DeadReason(text(m.Headers, headerReplyFailed)),
		Error: text(m.Headers, headerReplyError), Attempts: number(m.Headers, headerReplyAttempts),
	}
}
