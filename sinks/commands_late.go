package sinks

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A lateError says that an attempt comes too late to be begun. Whether an
// earlier one carried the command out and could not say so is for the inbox to
// know, so this error goes through it, in the handler's place.
type lateError struct {
	error
	reason   DeadReason
	attempts int
}

func (s *server) late(env *CommandEnvelope, attempt int) error {
	switch {
	case attempt > s.policy.MaxAttempts:
		return &lateError{
			fmt.Errorf("the worker of attempt %d never reported its end: it died, lost the broker, or had to stop", attempt-1),
			DeadUnfinished, s.policy.MaxAttempts,
		}
	case !env.Expires.IsZero() && time.Now().After(env.Expires):
		return &lateError{fmt.Errorf("it expired at %s", env.Expires.UTC().Format(time.RFC3339Nano)), DeadExpired, attempt - 1}
	}
	return nil
}

var errNotDone = errors.New("not carried out yet")

// remembered asks the inbox, and waits for an attempt that runs elsewhere.
func (s *server) remembered(ctx context.Context, id string) (reply []byte, done bool, err error) {
	reply, done, err = s.policy.Inbox.Once(ctx, s.queue, id, func(context.Context) ([]byte, error) { return nil, errNotDone })
	switch {
	case errors.Is(err, errNotDone):
		return nil, false, nil
	case isPermanent(err): // done, and what it replied is lost
		return nil, true, nil
	}
	return reply, done && err == nil, err
}

// done is what [ConsumeOptions].Done is.
func (s *server) done() func(context.Context, string) (bool, error) {
	if s.policy.Inbox == nil {
		return nil
	}
	return func(ctx context.Context, id string) (bool, error) {
		_, done, err := s.remembered(ctx, id)
		if errors.Is(err, ErrUnclear) {
			err = nil
		}
		return done, err
	}
}
