package grid

import (
	"errors"

	"github.com/rowcall/rowcall/listeners"
)

// A followed is the subscription with which something follows a source.
type followed struct{ *listeners.Subscription }

var _ upstream = followed{}

// Err returns why it ended: its own error, or the source's, if that has failed
// and said so. A source that was closed, as by the end of its context, is none.
func (f followed) Err() error {
	if err := f.Subscription.Err(); err != nil {
		return err
	}
	if reason := f.Reason(); !errors.Is(reason, listeners.ErrClosed) {
		return reason
	}
	return nil
}
