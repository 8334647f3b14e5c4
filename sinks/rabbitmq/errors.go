package rabbitmq

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// code returns the reply code of an error of the server, 0 if it is none.
func code(err error) int {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e.Code
	}
	return 0
}

// tooLarge is what the server says when it closes a channel because of a
// message's size (rabbit_channel:check_msg_size).
var tooLarge = regexp.MustCompile(`message size \d+ is larger than (?:configured )?max size (\d+)`)

// sizeLimit returns the limit that an error of the server names, 0 if none.
func sizeLimit(err error) int64 {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok || e.Code != amqp.PreconditionFailed {
		return 0
	}
	found := tooLarge.FindStringSubmatch(e.Reason)
	if found == nil {
		return 0
	}
	limit, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return 0
	}
	return limit
}

// inequivalent is what the server says of a declaration that differs from what
// is there (rabbit_misc:assert_args_equivalence1): "received none but current is
// the value '5' of type 'long'", "received '100' but current is '1000'".
var inequivalent = regexp.MustCompile(`inequivalent arg '([^']+)' for .* but current is (?:(none)|(?:the value )?'([^']*)')`)

// difference returns the argument that an error of the server names, and what
// its value is there; none if it has no such argument.
func difference(err error) (name, value string, none, ok bool) {
	e, is := errors.AsType[*amqp.Error](err)
	if !is || e.Code != amqp.PreconditionFailed {
		return "", "", false, false
	}
	found := inequivalent.FindStringSubmatch(e.Reason)
	if found == nil {
		return "", "", false, false
	}
	return found[1], found[3], found[2] != "", true
}

// explain turns what the server says of a queue into words and a remedy. Faults
// that may pass stay as they are.
func explain(queue, name string, err error) error {
	fail := func(reason string) error {
		return &sinks.QueueError{Queue: queue, Reason: reason, Err: err}
	}
	var known *sinks.QueueError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrSASL):
		return fail("the server refuses the user or the password; correct the URL (the user guest may connect from the server's own machine only)")
	case errors.Is(err, errNoRegistry):
		return fail(name + " does not exist; create it as the package's documentation says, or let it be created (MustExist)")
	case code(err) == amqp.AccessRefused:
		return fail(name + ": this user may not do that; give it the permissions configure, write and read on the names in the package's documentation")
	case code(err) == amqp.NotAllowed:
		return fail("this user may not use the vhost, or there is none of that name; correct the URL, or rabbitmqctl add_vhost and set_permissions")
	}
	if argument, _, _, ok := difference(err); ok {
		return fail(fmt.Sprintf("there is a queue %s of another kind (%s differs); delete it, or use another queue", name, argument))
	}
	return fmt.Errorf("queue %s: %s: %w", queue, name, err)
}
