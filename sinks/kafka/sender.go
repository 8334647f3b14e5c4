package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// A sender is the goroutine that talks to the brokers. It takes all that waits,
// sends it, and waits until all of it is stored; meanwhile the next lot gathers.
//
// Nothing is handed to the client while a lot is on its way. So a record that
// can never be stored fails together with all that are behind it in its
// partition, and none of these overtakes it.
type sender struct {
	client  *kgo.Client
	queue   *queue
	acks    *sinks.FirehoseAcks
	txID    string        // empty without transactions
	half    time.Duration // of the transactions' timeout
	begun   time.Time     // zero if no transaction is open
	reached uint64        // the number of the last message taken

	producer producer    // of the last transaction that was begun; its id is -1 before
	bumped   bool        // each transaction has an epoch of its own
	joined   atomic.Bool // the brokers know the transaction: they have stored a record of it

	mu    sync.Mutex
	fault error // the first of the lot
}

// run returns when ctx has ended or sending has failed.
func (s *sender) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// The brokers abort a transaction for which nothing comes any more.
		var due <-chan time.Time
		if !s.begun.IsZero() {
			timer.Reset(time.Until(s.begun.Add(s.half)))
			due = timer.C
		}
		l, err := s.queue.take(ctx, due)
		if err == nil {
			err = s.send(ctx, &l)
		}
		if err != nil {
			if lost, ok := errors.AsType[*producerError](err); ok && ctx.Err() == nil {
				s.acks.Fail(lost) // the brokers have ended its transaction
				return
			}
			s.abort()
			if ctx.Err() == nil {
				s.acks.Fail(sinks.Permanent(err))
			}
			return
		}
	}
}

func (s *sender) send(ctx context.Context, l *lot) error {
	if len(l.chunks) > 0 {
		if s.txID != "" && s.begun.IsZero() {
			if err := s.client.BeginTransaction(); err != nil {
				return s.explain("begin a transaction", err)
			}
			s.joined.Store(false)
			s.begun = time.Now()
			if id, epoch, err := s.client.ProducerID(ctx); err == nil {
				now := producer{id, epoch}
				s.bumped = s.bumped || s.producer.id == id && s.producer.epoch != epoch
				s.producer = now
			}
		}
		for _, c := range l.chunks {
			for _, r := range c.records {
				s.client.Produce(ctx, r, s.promise)
			}
			s.reached = c.last
		}
		if err := s.client.Flush(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		fault := s.fault
		s.mu.Unlock()
		if fault != nil {
			return fault
		}
		s.acks.Taken(s.reached)
	}
	if !s.begun.IsZero() {
		if !l.ends && !l.flush && time.Since(s.begun) < s.half {
			return nil // the rest of the transaction is to come
		}
		if err := s.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return s.explain("commit a transaction", err)
		}
		s.begun = time.Time{}
	}
	s.acks.Stored(s.reached)
	return nil
}

// promise is called by the client for each record.
func (s *sender) promise(r *kgo.Record, err error) {
	if err == nil {
		if !s.joined.Load() {
			s.joined.Store(true)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.fault = s.explainRecord(r, err)
	}
}

func (s *sender) explainRecord(r *kgo.Record, err error) error {
	switch {
	case errors.Is(err, kerr.MessageTooLarge):
		return &sinks.PlaceError{Place: place(r.Topic), Reason: fmt.Sprintf(
			"a record of about %d bytes (%s) is larger than it takes; raise its max.message.bytes, or leave the large column out of the publication", size(r), r.Key), Err: err}
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, context.Canceled):
		return fmt.Errorf("topic %s: %w", r.Topic, err)
	}
	return s.explain("", explain(r.Topic, err))
}

// explain recognises that somebody else has taken over, or that the brokers have
// given a transaction up, which some tell of in the same way.
func (s *sender) explain(what string, err error) error {
	const givenUp = "the brokers have given up a transaction that took longer than TransactionTimeout, %s, as when they are away for so long"
	lost := func(verdict error) error {
		return &producerError{producer: s.producer, own: s.bumped || s.joined.Load(), err: err, verdict: verdict}
	}
	switch {
	case s.txID == "":
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch),
		errors.Is(err, kerr.InvalidProducerIDMapping), errors.Is(err, kerr.TransactionalIDNotFound):
		return lost(&sinks.FencedError{
			Place: "the topics", Err: err,
			Reason: fmt.Sprintf("it has taken over with transactional id %q; stop one of the two. If there is no other, "+givenUp+": start again", s.txID, 2*s.half),
		})
	case errors.Is(err, kerr.InvalidTxnState):
		return lost(fmt.Errorf(givenUp+"; start again: %s with the transactional id %s: %w", 2*s.half, what, s.txID, err))
	}
	if what == "" {
		return err
	}
	if refused, ok := errors.AsType[*sinks.PlaceError](explain("of the transactional id "+s.txID, err)); ok {
		err = refused
	}
	return fmt.Errorf("%s with the transactional id %s: %w", what, s.txID, err)
}

// abort undoes what the brokers hold of an open transaction, so that readers
// need not wait for its timeout. It tries once.
func (s *sender) abort() {
	if s.begun.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.client.AbortBufferedRecords(ctx) == nil {
		_ = s.client.EndTransaction(ctx, kgo.TryAbort) // the brokers do it after the timeout
	}
}
