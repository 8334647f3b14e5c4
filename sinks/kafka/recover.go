package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A producerError says that the brokers do not take the producer any more: they have
// given its transaction or its id up, or another writer has taken over. Which of
// these it is they do not say.
type producerError struct {
	producer producer
	// own is true if one step of the epoch can only be the end of the producer's own
	// transaction: that was known to the brokers, whom a successor costs two
	// steps then; or every end of a transaction is a step, so that a successor
	// whose transaction was aborted is two ahead as well.
	own     bool
	err     error // what the brokers said
	verdict error // what ends the firehose if it cannot go on
}

// Error implements error. There is no Unwrap: the verdict is not out yet.
func (l *producerError) Error() string {
	return fmt.Sprintf("the brokers do not take this producer any more: %v", l.err)
}

// A producer is what the brokers know a writer by.
type producer struct {
	id    int64
	epoch int16
}

// aborted are the states of a transactional id whose transaction was given up. That of a
// writer that has just begun is Empty.
var aborted = []string{"PrepareEpochFence", "PrepareAbort", "CompleteAbort"}

// Recover goes on with a new producer behind the ends of the topics, as after a
// restart, if the brokers have given the old one up and nobody has taken over.
// Other faults are final: what may pass, the client library has tried again already.
func (w *writer) Recover(ctx context.Context, fault error) (listeners.Position, error) {
	none := listeners.Position{}
	l, ok := errors.AsType[*producerError](fault)
	if !ok {
		return none, sinks.Permanent(fault)
	}
	if !w.acks.Kept() {
		return none, sinks.Permanent(l.verdict)
	}
	w.quit()
	if err := w.unclaimed(ctx, l); err != nil {
		return none, err
	}
	before := w.topics
	w.queue, w.chunk, w.schema, w.topic = newQueue(), nil, nil, nil
	if err := w.start(ctx); err != nil {
		w.topics = before
		if refused, ok := errors.AsType[*kerr.Error](err); ok && !refused.Retriable && !errors.Is(err, kerr.UnknownServerError) {
			return none, sinks.Permanent(err)
		}
		return none, err
	}
	for name, t := range before {
		if now, ok := w.topics[name]; !ok || now.id != t.id {
			return none, goneTopic(name, nil)
		}
	}
	return none, nil
}

// quit ends the sender and its client, whose transactional id no request is under way
// with then that the brokers would still take: the next producer fences it.
func (w *writer) quit() {
	if w.client == nil {
		return
	}
	w.stop()
	w.wg.Wait()
	w.client.Close()
	w.client = nil
}

// unclaimed returns nil if it is sure that no other writer has taken over. Errors that
// are not final may pass.
//
// A transaction that the brokers end for its time is aborted with the next epoch. A
// writer that begins takes the next epoch, too, and one more before it if it finds a
// transaction open; then its state is Empty.
func (w *writer) unclaimed(ctx context.Context, l *producerError) error {
	client, err := kgo.NewClient(append(w.base(), kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0))...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	all, err := kadm.NewClient(client).DescribeTransactions(ctx, w.opts.TransactionalID)
	now, found := all[w.opts.TransactionalID]
	if err == nil {
		err = now.Err
	}
	switch {
	case errors.Is(err, kerr.TransactionalIDNotFound):
		return nil // it was not used for so long that it has expired; nobody has since
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case kerr.IsRetriable(err):
		return err
	case err != nil || !found: // brokers before 3.0, or not allowed
		return sinks.Permanent(l.verdict)
	}
	is, next := producer{now.ProducerID, now.ProducerEpoch}, producer{l.producer.id, l.producer.epoch + 1}
	ended := is == next && slices.Contains(aborted, now.State)
	switch {
	case w.claim != nil && *w.claim == is: // an earlier attempt's
		return nil
	case w.claim == nil && ended && l.own:
		return nil
	case w.claim == nil && (ended || is == l.producer):
		return sinks.Permanent(l.verdict)
	}
	return &sinks.FencedError{
		Place: "the topics", Err: l.err,
		Reason: fmt.Sprintf("it has taken over with transactional id %q; stop one of the two", w.opts.TransactionalID),
	}
}
