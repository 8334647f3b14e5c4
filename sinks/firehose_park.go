package sinks

import (
	"context"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// A TooLargePolicy is what a firehose does with a message that is larger than
// its place allows.
type TooLargePolicy uint8

const (
	// TooLargeFail ends the firehose with a [TooLargeError]. It is the default.
	TooLargeFail TooLargePolicy = iota
	// TooLargePark stores the body apart, as the broker's package describes, and
	// in the message's place a small one with the same attributes, whose
	// attribute dataref says where the body is. The body of that message is
	//
	//	{"op":"update","key":{"id":7},"before":null,"after":null,"dataref":"…"}
	//
	// Sources fetch the body, so their listeners notice nothing. If even the
	// small message is too large, the firehose ends with a TooLargeError.
	TooLargePark
)

// A FirehoseParker is a broker that can store a body apart from its message.
type FirehoseParker interface {
	FirehoseBroker
	// Park stores the body of m, blocks until it is stored, and returns where: the
	// dataref attribute. It may be called again for the same message, also by
	// another process after a crash. Errors are as those of Send.
	Park(ctx context.Context, m *FirehoseMessage) (ref string, err error)
}

// An Unparker is a [Log] that fetches the bodies that a firehose has parked.
type Unparker interface {
	Log
	// Unpark fetches the body that an attribute dataref speaks of. It tries until
	// ctx ends, whose cause it then returns. Other errors are final, a [PlaceError] if
	// the body is gone.
	Unpark(ctx context.Context, ref string) ([]byte, error)
}

// A ParkedError says that a message's body was parked and has to be fetched
// before it can be decoded.
type ParkedError struct {
	Ref string // the dataref attribute
}

// Error implements error.
func (e *ParkedError) Error() string {
	return fmt.Sprintf("the message was too large and its body is parked at %s; fetch it there", e.Ref)
}

// park puts a small frame into m, in place of one that is too large.
func (f *Firehose) park(ctx context.Context, m *FirehoseMessage) error {
	parker, ok := f.broker.(FirehoseParker)
	if !ok {
		return Permanent(fmt.Errorf("firehose %s: a message is too large, and its broker cannot park", f.Name()))
	}
	ref, err := parker.Park(ctx, m)
	if err != nil {
		return err
	}
	f.parked = *m.Frame
	f.parked.DataRef = ref
	f.parked.Body = appendParkedBody(nil, &m.Batch.Events[m.Index], ref)
	m.Frame = &f.parked
	f.counters.parked.Add(1)
	f.log.WarnContext(ctx, "a message is too large and was parked", "position", m.Position,
		"collection", m.Batch.Events[m.Index].Schema.Collection(), "place", ref)
	return nil
}

// parks reports whether a message that is too large is to be parked.
func (f *Firehose) parks(m *FirehoseMessage) bool {
	return f.c.TooLarge == TooLargePark && !m.Marker() && m.Frame.DataRef == ""
}

func appendParkedBody(dst []byte, e *listeners.Event, ref string) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, e.Op.String()...)
	dst = append(dst, `","key":`...)
	dst = e.Key().AppendJSON(dst)
	if old, changed := e.ChangedKey(); changed {
		dst = append(dst, `,"oldkey":`...)
		dst = old.AppendJSON(dst)
	}
	dst = append(dst, `,"before":null,"after":null,"dataref":`...)
	return append(appendJSONString(dst, ref), '}')
}
