package jetstream

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// Headers of commands, besides the CloudEvents attributes.
const (
	headerExpires   = "Rowcall-Expires"
	headerNotBefore = "Rowcall-Not-Before"
	headerReplyTo   = "Rowcall-Reply-To"
	headerCall      = "Rowcall-Call"

	headerDeadReason   = "Rowcall-Dead-Reason"
	headerDeadError    = "Rowcall-Dead-Error"
	headerDeadAttempts = "Rowcall-Dead-Attempts"
	headerDeadWorker   = "Rowcall-Dead-Worker"
	headerDeadTime     = "Rowcall-Dead-Time"
	headerDeadOrigin   = "Rowcall-Dead-Origin"
	headerDeadSubject  = "Rowcall-Dead-Subject"
	headerDeadID       = "Rowcall-Dead-Id"
	headerDeadCut      = "Rowcall-Dead-Cut"

	commandType = "rowcall.command.v1"
	// deadRoom is what the headers of a dead letter take at most, with the
	// longest error and id. So much less than the server allows may a command have.
	deadRoom = 6 << 10
)

// putEnvelope writes all but the subject and the body.
func putEnvelope(h nats.Header, e *sinks.CommandEnvelope) {
	for name, value := range e.Headers {
		h[name] = []string{value}
	}
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{value}
		}
	}
	set("ce-specversion", sinks.SpecVersion)
	set("ce-type", commandType)
	set("ce-id", sinks.EscapeHeader(e.ID))
	set("ce-source", sinks.EscapeHeader(e.Sender))
	set("ce-subject", e.Queue+"/"+e.Name)
	set("ce-time", timeText(e.Sent))
	set(headerExpires, timeText(e.Expires))
	set(headerNotBefore, timeText(e.At))
	set(headerReplyTo, e.ReplyTo)
	set(headerCall, e.Call)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// getEnvelope reads a command, whoever sent it: only subject and body have to be
// there. Fallback is the id of a message that has none.
func getEnvelope(subject string, h nats.Header, body []byte, fallback string) (*sinks.CommandEnvelope, error) {
	e := &sinks.CommandEnvelope{Command: sinks.Command{Body: body}}
	var fault error
	parse := func(name string) time.Time {
		v := h.Get(name)
		if v == "" {
			return time.Time{}
		}
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil && fault == nil {
			fault = fmt.Errorf("header %s: %w", name, err)
		}
		return t
	}
	for name, values := range h {
		if len(values) == 0 || sinks.ReservedHeader(name) {
			continue
		}
		if e.Headers == nil {
			e.Headers = make(map[string]string)
		}
		e.Headers[name] = values[0]
	}
	attribute := attributes(h)
	if e.ID = attribute("id"); e.ID == "" {
		e.ID = h.Get(natsjs.MsgIDHeader)
	}
	if e.ID == "" {
		e.ID = fallback
	}
	e.Sender, e.Sent = attribute("source"), parse(attributePrefix+"time")
	e.Expires, e.At = parse(headerExpires), parse(headerNotBefore)
	e.ReplyTo, e.Call = h.Get(headerReplyTo), h.Get(headerCall)
	parts := strings.SplitN(subject, ".", 3)
	if len(parts) != 3 || parts[0] != "cmd" {
		return e, fmt.Errorf("subject %q is not cmd.<queue>.<name>", subject)
	}
	e.Queue, e.Name = parts[1], parts[2]
	if fault == nil {
		fault = e.Validate()
	}
	return e, fault
}

func putDead(h nats.Header, d *sinks.DeadLetter, origin, subject, id string) {
	for name, value := range map[string]string{
		headerDeadReason: string(d.Reason), headerDeadError: d.Error, headerDeadAttempts: strconv.Itoa(d.Attempts),
		headerDeadWorker: d.Worker, headerDeadTime: timeText(d.Time), headerDeadOrigin: origin, headerDeadSubject: subject,
		headerDeadID: sinks.EscapeHeader(id),
	} {
		h[name] = []string{value}
	}
}

func getDead(ref string, h nats.Header, body []byte) sinks.DeadCommand {
	d := sinks.DeadCommand{Ref: ref, Origin: h.Get(headerDeadOrigin)}
	// What was no command is a dead letter because of that.
	env, _ := getEnvelope(h.Get(headerDeadSubject), h, body, "")
	d.Envelope = *env
	if id, err := sinks.UnescapeHeader(h.Get(headerDeadID)); err == nil && id != "" {
		d.Envelope.ID = id
	}
	d.Dead.Reason, d.Dead.Error = sinks.DeadReason(h.Get(headerDeadReason)), h.Get(headerDeadError)
	d.Dead.Attempts, _ = strconv.Atoi(h.Get(headerDeadAttempts))
	d.Dead.Worker = h.Get(headerDeadWorker)
	d.Cut, _ = strconv.Atoi(h.Get(headerDeadCut))
	d.Dead.Time, _ = time.Parse(time.RFC3339Nano, h.Get(headerDeadTime))
	return d
}

const (
	headerReplyCall     = "Rowcall-Call"
	headerReplyFailed   = "Rowcall-Failed"
	headerReplyError    = "Rowcall-Error"
	headerReplyAttempts = "Rowcall-Attempts"
)

func putReply(h nats.Header, r sinks.CommandReply) {
	h[headerReplyCall] = []string{r.Call}
	if r.Failed != "" {
		h[headerReplyFailed] = []string{string(r.Failed)}
		h[headerReplyError] = []string{sinks.EscapeHeader(r.Error)}
		h[headerReplyAttempts] = []string{strconv.Itoa(r.Attempts)}
	}
}

func getReply(h nats.Header, body []byte) sinks.CommandReply {
	r := sinks.CommandReply{Call: h.Get(headerReplyCall), Failed: sinks.DeadReason(h.Get(headerReplyFailed)), Body: body}
	r.Attempts, _ = strconv.Atoi(h.Get(headerReplyAttempts))
	text, err := sinks.UnescapeHeader(h.Get(headerReplyError))
	if err != nil {
		text = h.Get(headerReplyError)
	}
	r.Error = text
	return r
}
