package sinks

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"
)

// work brings one delivery to its end.
func (s *server) work(ctx context.Context, d CommandDelivery) {
	s.counters.running.Add(1)
	defer s.counters.running.Add(-1)
	env, err := d.Envelope()
	attempt := d.Attempt()
	if err != nil {
		s.bury(ctx, d, env, DeadUndecodable, attempt-1, err)
		return
	}
	alive, lost := context.WithCancelCause(ctx)
	still := sync.OnceFunc(s.beat(ctx, d, lost))
	defer func() {
		still()
		lost(nil)
	}()

	reply, repeated, failed, err := s.execute(alive, env, attempt)
	late, isLate := errors.AsType[*lateError](err)
	switch {
	case err == nil:
		s.finish(ctx, d, env, reply, repeated)
	case isLate:
		s.bury(ctx, d, env, late.reason, late.attempts, late.error)
	case errors.Is(context.Cause(alive), ErrLeaseLost):
		s.counters.leasesLost.Add(1)
		s.log.WarnContext(ctx, "a command's lease was lost", s.fields(env, attempt, err)...)
	case errors.Is(context.Cause(ctx), ErrDrained):
		s.counters.givenBack.Add(1)
		still()
		_ = s.settle(ctx, func(ctx context.Context) error { return d.Retry(ctx, 0) })
	case errors.Is(err, ErrUnclear):
		s.bury(ctx, d, env, DeadUnclear, attempt, err)
	case isPermanent(err):
		s.bury(ctx, d, env, DeadPermanent, attempt, err)
	case attempt < s.policy.MaxAttempts:
		s.again(ctx, d, env, attempt, err, still)
	case failed || s.policy.Inbox == nil:
		s.bury(ctx, d, env, DeadAttempts, attempt, err)
	default:
		// The inbox failed, and may remember the command all the same.
		reply, done, asking := s.remembered(alive, env.ID)
		switch {
		case done:
			s.finish(ctx, d, env, reply, true)
		case asking == nil:
			s.bury(ctx, d, env, DeadAttempts, attempt, err)
		case errors.Is(asking, ErrUnclear):
			s.bury(ctx, d, env, DeadUnclear, attempt, asking)
		default:
			s.again(ctx, d, env, attempt, err, still)
		}
	}
}

func (s *server) again(ctx context.Context, d CommandDelivery, env *CommandEnvelope, attempt int, err error, still func()) {
	after := s.policy.delay(attempt)
	s.counters.retried.Add(1)
	s.log.WarnContext(ctx, "an attempt at a command failed", append(s.fields(env, attempt, err), "retry_after", after)...)
	still()
	_ = s.settle(ctx, func(ctx context.Context) error { return d.Retry(ctx, after) })
}

// execute calls the handler, through the inbox if there is one. Failed says that
// the error is of the handler, and not of the inbox.
func (s *server) execute(ctx context.Context, env *CommandEnvelope, attempt int) (reply []byte, repeated, failed bool, err error) {
	do := func(ctx context.Context) ([]byte, error) {
		if late := s.late(env, attempt); late != nil {
			return nil, late
		}
		r := &Received{Command: env.Command, Sender: env.Sender, Sent: env.Sent, Attempt: attempt}
		err := s.contain(ctx, r)
		failed = err != nil
		return r.reply, err
	}
	if s.policy.Inbox == nil {
		reply, err = do(ctx)
	} else {
		reply, repeated, err = s.policy.Inbox.Once(ctx, s.queue, env.ID, do)
	}
	return reply, repeated, failed, err
}

// contain turns a panic into an error.
func (s *server) contain(ctx context.Context, r *Received) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		if value == nil {
			// Goexit runs the deferred functions and cannot be stopped: the
			// attempt ends without a report, and another worker gets the command.
			return
		}
		s.counters.panics.Add(1)
		err = &HandlerPanicError{Value: value, Stack: debug.Stack()}
	}()
	err = s.handler(ctx, r)
	returned = true
	return err
}

// finish replies first: a crash in between repeats the reply, not the wait for
// one that never comes.
func (s *server) finish(ctx context.Context, d CommandDelivery, env *CommandEnvelope, reply []byte, repeated bool) {
	s.reply(ctx, env, CommandReply{Body: reply})
	if err := s.settle(ctx, d.Ack); err != nil {
		return
	}
	if repeated {
		s.counters.repeated.Add(1)
	} else {
		s.counters.done.Add(1)
	}
}

func (s *server) bury(ctx context.Context, d CommandDelivery, env *CommandEnvelope, reason DeadReason, attempts int, cause error) {
	if panicked, ok := errors.AsType[*HandlerPanicError](cause); ok {
		s.log.ErrorContext(ctx, "a command's handler panicked", "queue", s.queue, "stack", string(panicked.Stack))
	}
	s.log.ErrorContext(ctx, "a command became a dead letter", append(s.fields(env, attempts, cause), "reason", string(reason))...)
	letter := DeadLetter{Reason: reason, Error: deadError(cause), Attempts: attempts, Worker: s.worker, Time: time.Now()}
	if err := s.settle(ctx, func(ctx context.Context) error { return d.Bury(ctx, letter) }); err != nil {
		return // it is delivered again, and buried then
	}
	s.counters.dead.Add(1)
	s.reply(ctx, env, CommandReply{Failed: reason, Error: commandError(cause), Attempts: attempts})
}

func (s *server) reply(ctx context.Context, env *CommandEnvelope, r CommandReply) {
	if env == nil || env.ReplyTo == "" {
		return
	}
	r.Call = env.Call
	if err := s.broker.Reply(context.WithoutCancel(ctx), env.ReplyTo, r); err != nil {
		s.log.WarnContext(ctx, "a reply could not be sent", "queue", s.queue, "command", env.Name, "id", env.ID, "error", err)
	}
}

// settle tells the broker how a delivery ended, again and again until the lease
// is over: then the broker delivers it anew anyway.
func (s *server) settle(ctx context.Context, end func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.policy.Lease)
	defer cancel()
	for try := 1; ; try++ {
		err := end(ctx)
		if err == nil {
			return nil
		}
		if final(err) || errors.Is(err, ErrLeaseLost) || pause(ctx, backoff(firstSendPause, longestPause, try)) != nil {
			s.counters.ackFailures.Add(1)
			s.log.WarnContext(ctx, "the end of a command was not confirmed; it will be delivered again", "queue", s.queue, "error", err)
			return err
		}
	}
}

// beat extends the lease until the function that it returns is called; that
// waits. A broker that could not be told for a whole lease has given the command to another
// worker. It goes on while a handler takes longer than the drain: who ignores its
// context still holds its command.
func (s *server) beat(ctx context.Context, d CommandDelivery, lost context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	begun, done := time.Now(), make(chan struct{})
	// A handler that is quick costs no goroutine.
	timer := time.AfterFunc(s.policy.Lease/3, func() {
		defer close(done)
		s.extend(ctx, d, begun, lost)
	})
	return func() {
		cancel()
		if !timer.Stop() {
			<-done
		}
	}
}

// extend extends the lease now and then at every third of it.
func (s *server) extend(ctx context.Context, d CommandDelivery, last time.Time, lost context.CancelCauseFunc) {
	ticker := time.NewTicker(s.policy.Lease / 3)
	defer ticker.Stop()
	for {
		trying, cancel := context.WithTimeout(ctx, s.policy.Lease/3)
		now := time.Now()
		err := d.Extend(trying)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = now // at the latest, the broker heard it later
		case errors.Is(err, ErrLeaseLost), time.Since(last) >= s.policy.Lease:
			lost(ErrLeaseLost)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *server) fields(env *CommandEnvelope, attempt int, err error) []any {
	fields := []any{"queue", s.queue, "attempt", attempt, "error", err}
	if env != nil {
		fields = append(fields, "command", env.Name, "id", env.ID)
	}
	return fields
}
