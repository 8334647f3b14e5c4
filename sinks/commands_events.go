package sinks

import (
	"context"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// EventID returns the identity of an event: the id attribute of its message.
func EventID(e *listeners.Event) string { return schemaSource(e.Schema) + "/" + e.Position.String() }

// CommandsFor returns a listener that sends a command for each event that
// command returns one for; nil means none. A batch is handled when the broker
// has stored all of its commands: until then, a source that can sends it again
// after a restart. While the broker is away the listener waits, until its
// subscription is closed.
//
// A command without an ID gets the event's, see [EventID], with "/" and its
// name behind it: an event that is sent again sends its command once, for as
// long as the broker remembers ids, and after that the [Inbox] recognises it.
// Who needs two commands of one name for one event sets their IDs.
//
// Rows of a snapshot (op read) come again with every snapshot, at other
// positions; most functions return nil for them. An error of the function ends
// the subscription, and so does a command that can never be stored. Resets and
// live markers send nothing.
func CommandsFor(c *Commands, command func(*listeners.Event) (*Command, error)) listeners.Listener {
	return listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
		var cmds []Command
		for i := range b.Events {
			e := &b.Events[i]
			cmd, err := command(e)
			if err != nil {
				return fmt.Errorf("command for event %s: %w", EventID(e), err)
			}
			if cmd == nil {
				continue
			}
			one := *cmd
			if one.ID == "" {
				one.ID = EventID(e) + "/" + one.Name
			}
			cmds = append(cmds, one)
		}
		if len(cmds) == 0 {
			return nil
		}
		return c.sendAll(ctx, cmds, time.Time{})
	})
}
