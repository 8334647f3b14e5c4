package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A CommandHandler carries out a command. Nil says that it is done: only then
// it is acknowledged. After an error or a panic it is tried again, see
// [ServePolicy]; [Permanent] says that this would be in vain.
//
// The context ends when the worker is to stop and the handler has not come to its end
// within the DrainTimeout, and when the lease is lost ([ErrLeaseLost]). It is
// called concurrently.
type CommandHandler func(ctx context.Context, r *Received) error

// A Received is a command as its handler gets it.
type Received struct {
	Command
	Sender  string
	Sent    time.Time
	Attempt int // counts from 1

	reply []byte
}

// Reply sets what [Commands.Call] returns to its caller once the handler has
// returned nil. Nobody need wait for it. The body is not copied.
func (r *Received) Reply(body []byte) { r.reply = body }

// A server is one call of Serve.
type server struct {
	*Commands

	queue    string
	policy   ServePolicy
	handler  CommandHandler
	consumer CommandConsumer
	slots    chan struct{} // holds one for each command in work
}

// Serve carries out the commands of a queue until ctx ends. Then it takes no
// new ones, waits for the running ones, at most as long as DrainTimeout, and
// returns nil; if some were not finished, their contexts end, they go back to
// the queue, and it returns a [DrainError]. It always waits until its handlers have returned.
//
// While the broker is away Serve waits for it. A queue that cannot be served
// is an error: [QueueError], [OwnerError].
func (c *Commands) Serve(ctx context.Context, queue string, handler CommandHandler, p *ServePolicy) error {
	policy, err := p.withDefaults()
	if handler == nil {
		err = errors.Join(err, errors.New("no handler"))
	}
	if err != nil {
		return fmt.Errorf("serve queue %s: %w", queue, err)
	}
	s := &server{Commands: c, queue: queue, policy: policy, handler: handler, slots: make(chan struct{}, policy.Concurrency)}
	if err := s.start(ctx); err != nil {
		if _, cut := errors.AsType[*endedError](err); cut {
			err = nil // it was to end before it had begun
		}
		return err
	}
	return s.run(ctx)
}

// start waits for the broker as Serve does later.
func (s *server) start(ctx context.Context) error {
	owner := s.owner
	if owner == "" {
		owner = s.queue
	}
	for try := 1; ; try++ {
		err := s.open(ctx, s.queue)
		if err == nil {
			s.consumer, err = s.broker.Consume(ctx, s.queue, ConsumeOptions{
				Owner: owner, Lease: s.policy.Lease, MaxAttempts: s.policy.MaxAttempts, Concurrency: s.policy.Concurrency,
				Done: s.done(),
			})
		}
		switch {
		case err == nil, final(err):
			return err
		case ctx.Err() != nil:
			return &endedError{err}
		}
		s.log.WarnContext(ctx, "commands cannot be served yet", "queue", s.queue, "error", err)
		if err := pause(ctx, backoff(firstSendPause, longestPause, try)); err != nil {
			return &endedError{err}
		}
	}
}

// An endedError says that ctx ended while Serve began.
type endedError struct{ error }

func (s *server) run(ctx context.Context) error {
	// Handlers outlive ctx, for as long as the drain may take.
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	err := s.receive(ctx, work, &wg)
	// What this worker has taken and not begun must not wait for the drain.
	s.consumer.Close()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		wg.Wait()
	}()
	timer := time.NewTimer(s.policy.DrainTimeout)
	defer timer.Stop()
	select {
	case <-idle:
		return err
	case <-timer.C:
	}
	unfinished := len(s.slots)
	stop(ErrDrained)
	<-idle
	return errors.Join(err, &DrainError{Queue: s.queue, Unfinished: unfinished, Timeout: s.policy.DrainTimeout})
}

// receive starts commands until ctx ends, which is no error, or the queue
// cannot be served any more. When ctx has ended it asks once more for what the
// broker cannot take back.
func (s *server) receive(ctx, work context.Context, wg *sync.WaitGroup) error {
	failures := 0
	for {
		free := s.take(ctx)
		if free == 0 {
			return nil // ctx has ended, and all are in work
		}
		deliveries, err := s.consumer.Receive(ctx, free)
		for range free - len(deliveries) {
			<-s.slots
		}
		for _, d := range deliveries {
			s.counters.received.Add(1)
			wg.Go(func() {
				defer func() { <-s.slots }()
				s.work(work, d)
			})
		}
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
			return nil //nolint:nilerr // ctx's end is none
		case final(err):
			return err
		default:
			if failures++; failures == 3 { // a reconnect is not worth a line
				s.log.WarnContext(ctx, "no commands can be received", "queue", s.queue, "error", err)
			}
			_ = pause(ctx, backoff(firstSendPause, longestPause, failures)) // ctx is looked at by take
		}
	}
}

// take takes all slots that are free. It waits for one, until ctx ends.
func (s *server) take(ctx context.Context) int {
	n := 0
	select {
	case <-ctx.Done():
	case s.slots <- struct{}{}:
		n++
	}
	for {
		select {
		case s.slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
}
