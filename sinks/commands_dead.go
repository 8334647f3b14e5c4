package sinks

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// A DeadReason says why a command became a dead letter.
type DeadReason string

const (
	// DeadAttempts: the handler failed in every attempt.
	DeadAttempts DeadReason = "attempts"
	// DeadPermanent: the handler returned a [Permanent] error.
	DeadPermanent DeadReason = "permanent"
	// DeadUnfinished: the last attempt never reported its end. Its worker
	// died, or lost its connection.
	DeadUnfinished DeadReason = "unfinished"
	// DeadUndeliverable: workers kept dying before they could begin it, and
	// the broker gave it up.
	DeadUndeliverable DeadReason = "undeliverable"
	// DeadExpired: no worker began it before [Command].Expires.
	DeadExpired DeadReason = "expired"
	// DeadUndecodable: the message is no command.
	DeadUndecodable DeadReason = "undecodable"
	// DeadUnclear: the [Inbox] cannot know whether it was carried out.
	DeadUnclear DeadReason = "unclear"
)

// A DeadLetter says what became of a command.
type DeadLetter struct {
	Reason DeadReason `json:"reason"`
	// Error is the text of the last error: one line of about 2,000 bytes at the
	// most, so that every broker has room for it in a header.
	Error string `json:"error"`
	// Attempts were begun.
	Attempts int `json:"attempts"`
	// Worker is who gave it up.
	Worker string    `json:"worker"`
	Time   time.Time `json:"time"`
}

// maxCommandError bounds the text of an error in a dead letter and in a reply.
const maxCommandError = 2000

// commandError is the text of an error as a reply has it.
func commandError(err error) string {
	text := err.Error()
	if len(text) > maxCommandError {
		text = strings.ToValidUTF8(text[:maxCommandError], "") + "..."
	}
	return text
}

// deadError is the text of an error as it stands in a dead letter.
func deadError(err error) string {
	return strings.TrimSpace(strings.NewReplacer("\n", " ", "\r", " ").Replace(commandError(err)))
}

// A DeadCommand is a dead letter with the command that it was.
type DeadCommand struct {
	// Ref is what the broker knows the dead letter by.
	Ref string
	// Origin is where the command was: for JetStream the stream and the
	// sequence, such as "CMD_FLEET/17".
	Origin   string
	Envelope CommandEnvelope
	Dead     DeadLetter
	// Cut is how many bytes are missing at the end of the body: those of a
	// message from elsewhere that left no room for the reason. What
	// [Commands] sends always has that room.
	Cut int
}

// Queues describes the queues that the broker has, in the order of their
// names.
func (c *Commands) Queues(ctx context.Context) ([]QueueStatus, error) {
	return c.broker.Queues(ctx)
}

// Dead goes through the dead letters of a queue, oldest first. It ends with
// those that were there at its start, or with an error.
func (c *Commands) Dead(ctx context.Context, queue string) iter.Seq2[DeadCommand, error] {
	if err := ValidQueue(queue); err != nil {
		return func(yield func(DeadCommand, error) bool) { yield(DeadCommand{}, err) }
	}
	return c.broker.Dead(ctx, queue)
}

// DeadLetter returns one dead letter, [ErrNoDeadLetter] if there is none with
// this ref.
func (c *Commands) DeadLetter(ctx context.Context, queue, ref string) (DeadCommand, error) {
	for d, err := range c.Dead(ctx, queue) {
		if err != nil {
			return DeadCommand{}, err
		}
		if d.Ref == ref {
			return d, nil
		}
	}
	return DeadCommand{}, fmt.Errorf("queue %s, %s: %w", queue, ref, ErrNoDeadLetter)
}

// RetryDead puts a dead letter's command back into its queue, with the same ID, all its
// attempts, and no expiry, and then removes the dead letter. Nobody waits for
// its reply any more. It tries as long as Send does. If it fails in between, the dead letter is still there, and
// the next RetryDead sends nothing twice as long as the broker remembers.
func (c *Commands) RetryDead(ctx context.Context, queue, ref string) error {
	d, err := c.DeadLetter(ctx, queue, ref)
	if err != nil {
		return err
	}
	return c.Resend(ctx, &d)
}

// Resend is [Commands.RetryDead] for a dead letter that one has, whose command
// may have been corrected. One whose body was cut is refused, until Cut is 0.
func (c *Commands) Resend(ctx context.Context, d *DeadCommand) error {
	e, err := d.again()
	if err != nil {
		return err
	}
	err = c.within(ctx, func(ctx context.Context) error { return c.publish(ctx, []CommandEnvelope{e}) })
	if err != nil {
		return err
	}
	err = c.broker.RemoveDead(ctx, e.Queue, d.Ref)
	if errors.Is(err, ErrNoDeadLetter) {
		return nil // somebody retried it at the same time
	}
	return err
}

// DiscardDead removes a dead letter for good.
func (c *Commands) DiscardDead(ctx context.Context, queue, ref string) error {
	if err := ValidQueue(queue); err != nil {
		return err
	}
	return c.broker.RemoveDead(ctx, queue, ref)
}
