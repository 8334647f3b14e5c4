package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// Codes of the JetStream API for what does not fit.
const (
	codeMessageTooLarge     natsjs.ErrorCode = 10054
	codeStoreFailed         natsjs.ErrorCode = 10077
	codeAccountExceeded     natsjs.ErrorCode = 10002
	codeInsufficient        natsjs.ErrorCode = 10023
	codeStorageExceeded     natsjs.ErrorCode = 10047
	codeConsumerNotUnique   natsjs.ErrorCode = 10100
	codeFilteredNotUnique   natsjs.ErrorCode = 10099
	codeMemoryExceeded      natsjs.ErrorCode = 10028
	codeSchedulesNotAllowed natsjs.ErrorCode = 10188
)

// OpenQueue implements [sinks.CommandBroker].
func (b *CommandBroker) OpenQueue(ctx context.Context, queue string) error {
	if err := b.open(); err != nil {
		return err
	}
	info, err := b.ensure(ctx, queue, b.commandConfig(queue))
	if err != nil {
		return err
	}
	if err := checkCommandStream(queue, &info.Config); err != nil {
		return err
	}
	dead, err := b.ensure(ctx, queue, b.deadConfig(queue))
	if err != nil {
		return err
	}
	if err := checkDeadStream(queue, &dead.Config); err != nil {
		return err
	}
	b.mu.Lock()
	b.scheduled[queue] = info.Config.AllowMsgSchedules && covers(info.Config.Subjects, delayPrefix(queue)+"x")
	b.mu.Unlock()
	return nil
}

// commandConfig allows no direct reads: a replica that lags would show commands
// and dead letters that are done with. It uses schedules where nothing can be dropped: the server has
// them only with DiscardOld, which with a limit would drop the oldest command.
func (b *CommandBroker) commandConfig(queue string) natsjs.StreamConfig {
	c := natsjs.StreamConfig{
		Name:        CommandStream(queue),
		Description: "commands for the owner of queue " + queue,
		Subjects:    []string{CommandSubject(queue, ">")},
		Retention:   natsjs.WorkQueuePolicy,
		Storage:     natsjs.FileStorage,
		Replicas:    b.opts.Replicas,
		Duplicates:  b.opts.Duplicates,
	}
	if b.opts.MaxMessages > 0 || b.opts.MaxBytes > 0 {
		c.Discard, c.MaxMsgs, c.MaxBytes = natsjs.DiscardNew, b.opts.MaxMessages, b.opts.MaxBytes
		return c
	}
	c.Subjects = append(c.Subjects, delayPrefix(queue)+"*")
	c.AllowMsgSchedules = true
	return c
}

// deadConfig holds what the server says of commands that it gave up, too: so
// nothing is missed while no worker runs.
func (b *CommandBroker) deadConfig(queue string) natsjs.StreamConfig {
	return natsjs.StreamConfig{
		Name:        DeadStream(queue),
		Description: "dead letters of queue " + queue,
		Subjects:    []string{DeadSubject(queue), advisorySubject(queue)},
		Retention:   natsjs.LimitsPolicy,
		Storage:     natsjs.FileStorage,
		Replicas:    b.opts.Replicas,
		Duplicates:  deadDuplicates,
	}
}

func (b *CommandBroker) ensure(ctx context.Context, queue string, want natsjs.StreamConfig) (*natsjs.StreamInfo, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	s, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		if b.opts.MustExist {
			return nil, &sinks.QueueError{Queue: queue, Reason: fmt.Sprintf("there is no stream %s; create it, or let it be created (MustExist)", want.Name)}
		}
		s, err = b.js.CreateStream(ctx, want)
		if errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) { // somebody else was faster
			s, err = b.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return nil, b.explain(queue, want.Name, err)
	}
	return s.CachedInfo(), nil
}

// explain turns what the server says into words and a remedy. Faults that may
// pass stay as they are.
func (b *CommandBroker) explain(queue, stream string, err error) error {
	fail := func(reason string) error {
		return &sinks.QueueError{Queue: queue, Reason: "stream " + stream + ": " + reason, Err: err}
	}
	var api *natsjs.APIError
	switch {
	case errors.Is(err, natsjs.ErrJetStreamNotEnabled):
		return fail("the NATS server has no JetStream; start it with -js, or with a jetstream block in its configuration")
	case errors.Is(err, natsjs.ErrJetStreamNotEnabledForAccount):
		return fail("JetStream is not enabled for this account; enable it there, or use another user")
	case errors.Is(err, nats.ErrPermissionViolation):
		return fail("this user may not manage streams; allow it to publish to $JS.API.>, or create the stream and set MustExist")
	case errors.As(err, &api) && api.ErrorCode == codeSubjectOverlap:
		return fail("its subjects belong to another stream; take them from that, or use another queue")
	case errors.As(err, &api) && api.ErrorCode == codeReplicasRefused:
		return fail(fmt.Sprintf("%d replicas need a cluster; set the replicas to 1", b.opts.Replicas))
	case refusal(err) != "":
		return fail(refusal(err))
	}
	return fmt.Errorf("queue %s: stream %s: %w", queue, stream, err)
}

// checkCommandStream returns what keeps an existing stream from being a queue.
// Limits that drop commands are among it.
func checkCommandStream(queue string, c *natsjs.StreamConfig) error {
	var reason string
	switch {
	case c.Retention != natsjs.WorkQueuePolicy:
		reason = fmt.Sprintf("its retention is %q, so a command would not leave it when it is done; it must be \"workqueue\": delete the stream, or use another queue", c.Retention)
	case c.Mirror != nil || c.Sealed:
		reason = "it is a mirror or sealed and takes no messages; use another queue"
	case c.NoAck:
		reason = "it does not acknowledge; set no_ack to false"
	case !covers(c.Subjects, CommandSubject(queue, ">")):
		reason = fmt.Sprintf("its subjects %q do not hold %s; add that", c.Subjects, CommandSubject(queue, ">"))
	case c.MaxAge > 0 || c.MaxMsgsPerSubject > 0:
		reason = "max_age or max_msgs_per_subject would drop commands; set them to 0"
	case c.Discard == natsjs.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0):
		reason = "max_msgs or max_bytes with discard \"old\" would drop commands when it is full; set discard to \"new\""
	default:
		return nil
	}
	return &sinks.QueueError{Queue: queue, Reason: "stream " + c.Name + ": " + reason}
}

func checkDeadStream(queue string, c *natsjs.StreamConfig) error {
	var reason string
	switch {
	case c.Retention != natsjs.LimitsPolicy:
		reason = fmt.Sprintf("its retention is %q, so dead letters would vanish when somebody reads them; it must be \"limits\"", c.Retention)
	case c.Mirror != nil || c.Sealed || c.NoAck:
		reason = "it is a mirror, sealed, or does not acknowledge; use another queue"
	case !covers(c.Subjects, DeadSubject(queue)):
		reason = fmt.Sprintf("its subjects %q do not hold %s; add that", c.Subjects, DeadSubject(queue))
	case !slices.Contains(c.Subjects, advisorySubject(queue)) && !covers(c.Subjects, advisorySubject(queue)):
		reason = fmt.Sprintf("its subjects %q do not hold %s, where the server tells of commands that it gave up; add that", c.Subjects, advisorySubject(queue))
	default:
		return nil
	}
	return &sinks.QueueError{Queue: queue, Reason: "stream " + c.Name + ": " + reason}
}
