package sinks

import (
	"context"
	"errors"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// A FirehoseReader is a broker whose places can be read.
type FirehoseReader interface {
	FirehoseBroker
	// Source returns a source for all that the firehose stores. It starts nothing
	// and may be called from anywhere, before Open and after Close too.
	Source(opts *SourceOptions) (*Source, error)
}

// Read hands a listener what the firehose has stored from a place on, as a
// [Source] does: a position (an LSN), a sequence, a time, the oldest, or, with the
// zero Start, what is stored from now on. It follows until ctx ends, and then returns nil; or,
// with [SourceOptions].UntilTip, until the listener has handled all that was there
// when Read began. Start of the options does not count; nil means the defaults.
//
// A failure of the listener ends it with a [listeners.ListenerError]; other errors
// are those of [Source.Run]. It may be called from anywhere, any number of times, and needs no Open. A reader
// that keeps positions and wants retries, filters or several listeners makes a Source
// of the broker's package.
func (f *Firehose) Read(ctx context.Context, from Start, l listeners.Listener, opts *SourceOptions) error {
	reader, ok := f.broker.(FirehoseReader)
	if !ok {
		return fmt.Errorf("firehose %s: %w", f.Name(), errors.ErrUnsupported)
	}
	var o SourceOptions
	if opts != nil {
		o = *opts
	}
	o.Start = from
	source, err := reader.Source(&o)
	if err != nil {
		return err
	}
	sub, err := source.Subscribe("read", l, nil)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-sub.Done(): // its error is Run's
			stop()
		case <-running.Done():
		}
	}()
	err = source.Run(running)
	stop()
	<-ended
	return err
}
