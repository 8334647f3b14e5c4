package sinks

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Command asks one service to do one thing. Unlike an event it has one
// owner: it waits in one queue until a worker of the service that serves the
// queue has carried it out.
type Command struct {
	// Queue is the queue of the service that owns the command, such as
	// "fleet": lower-case words and digits, joined by "-". A command belongs to
	// one queue; the same name in another queue is another command.
	Queue string
	// Name says what to do, in the imperative: "add-carriage", not
	// "carriage-added", which would be an event. Written as Queue is.
	Name string
	// ID is the identity of the command, at most [MaxCommandID] bytes of
	// visible ASCII. Who sends a command again because the first Send failed
	// uses the same ID. Default: a new random one.
	ID string
	// Body is what the service needs to know, usually JSON.
	Body []byte
	// Headers go with the command. Names are visible ASCII without a colon and do not
	// begin with "Nats-", "ce-" or "Rowcall-"; values have no line breaks.
	Headers map[string]string
	// Expires, if it is set, is when it is too late: a command that no worker
	// has begun by then becomes a dead letter.
	Expires time.Time
}

const (
	// MaxCommandID is the largest length of [Command].ID in bytes.
	MaxCommandID = 512
	// maxWord bounds queues and names, which become parts of subjects and of
	// names of streams.
	maxWord = 64
)

// An InvalidCommandError lists what is wrong with a command. Nothing was sent.
type InvalidCommandError struct {
	Queue, Name, ID string
	Faults          []string
}

// Error implements error.
func (e *InvalidCommandError) Error() string {
	return fmt.Sprintf("command %q for queue %q: %s", e.Name, e.Queue, strings.Join(e.Faults, "; "))
}

// Validate returns an [InvalidCommandError] with all faults, or nil. An empty
// ID is no fault.
func (c *Command) Validate() error {
	var faults []string
	add := func(err error) {
		if err != nil {
			faults = append(faults, err.Error())
		}
	}
	add(ValidQueue(c.Queue))
	add(validName(c.Name))
	add(validID(c.ID))
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		add(validHeader(name, c.Headers[name]))
	}
	if len(faults) == 0 {
		return nil
	}
	return &InvalidCommandError{Queue: c.Queue, Name: c.Name, ID: c.ID, Faults: faults}
}

// ValidQueue returns what is wrong with the name of a queue.
func ValidQueue(queue string) error {
	if !words(queue) {
		return fmt.Errorf("the queue %q is not made of lower-case words and digits joined by \"-\", such as \"fleet\"", queue)
	}
	return nil
}

func validName(name string) error {
	switch {
	case !words(name) || name[0] >= '0' && name[0] <= '9':
		return fmt.Errorf("the name %q is not made of lower-case words joined by \"-\", such as \"add-carriage\"", name)
	case pastTense(name):
		return fmt.Errorf("the name %q tells what has happened, as an event does; say what to do, such as \"add-carriage\"", name)
	}
	return nil
}

func words(s string) bool {
	if s == "" || len(s) > maxWord {
		return false
	}
	for word := range strings.SplitSeq(s, "-") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return true
}

// states are verbs that take a participle: mark-order-paid is a command.
var states = []string{"mark", "set", "flag", "make", "keep", "get", "report"}

// pastTense finds names such as "created" and "order-placed". It knows regular
// verbs only, so it finds the slip, not the sinner.
func pastTense(name string) bool {
	all := strings.Split(name, "-")
	first, last := all[0], all[len(all)-1]
	return participle(first) || participle(last) && !slices.Contains(states, first)
}

func participle(word string) bool {
	switch {
	case len(word) < 5 || !strings.HasSuffix(word, "ed") || strings.HasSuffix(word, "eed"):
		return false // led, need, exceed
	case word == "embed" || word == "shred":
		return false
	}
	return true
}

func validID(id string) error {
	if len(id) > MaxCommandID {
		return fmt.Errorf("the ID has %d bytes, more than %d", len(id), MaxCommandID)
	}
	if !visible(id) {
		return errors.New("the ID is not visible ASCII")
	}
	return nil
}

func validHeader(name, value string) error {
	switch {
	case name == "" || !visible(name) || strings.Contains(name, ":"):
		return fmt.Errorf("the header %q is not visible ASCII without a colon", name)
	case ReservedHeader(name):
		return fmt.Errorf("the header %q has a prefix that is not yours: Nats-, ce- and Rowcall- are taken", name)
	case strings.ContainsAny(value, "\r\n") || value != strings.TrimSpace(value):
		return fmt.Errorf("the value of header %q has line breaks, or spaces around it", name)
	}
	return nil
}

// ReservedHeader reports whether a header belongs to a broker or to this
// library, and so is none of a command's own.
func ReservedHeader(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, "ce-") || strings.HasPrefix(lower, "rowcall-")
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
