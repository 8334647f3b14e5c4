package sinks

import (
	"context"
	"iter"
	"time"
)

// A CommandBroker moves commands; users hold a [Commands], which adds what is
// the same for every broker: ids, retries, attempts, dead letters, concurrency,
// drain, replies. Package sinktest has the suite that a broker passes.
//
// All methods may be called concurrently. They retry nothing: an error other
// than [QueueError], [OwnerError] and [CommandTooLargeError] may pass, and
// Commands decides whether to try again. None of them keeps what it is given after it has
// returned. After Close each returns an error at once.
type CommandBroker interface {
	// OpenQueue makes what a queue needs, or checks what is there, and returns
	// a QueueError if it cannot serve. It blocks for round trips. A partial
	// failure leaves what was made; the next call goes on from there.
	OpenQueue(ctx context.Context, queue string) error

	// Publish stores envelopes, all of one queue that was opened. It blocks
	// until each is confirmed stored or has failed, and returns nil when all are
	// stored, otherwise one error for each envelope, nil for those that are stored. An
	// error means that the envelope may be stored all the same. Envelopes of
	// one queue with the same Dedupe are stored once, for as long as the
	// broker remembers. An error that wraps [ErrQueueFull] says that the
	// broker refused for want of room.
	Publish(ctx context.Context, envelopes []CommandEnvelope) []error

	// Consume makes a consumer of an opened queue. All consumers of a queue
	// share its commands. It returns an [OwnerError] if the queue is served by another owner.
	Consume(ctx context.Context, queue string, o ConsumeOptions) (CommandConsumer, error)

	// Reply sends a reply to an address that Replies gave to somebody. It may
	// return before the reply has arrived, and a reply to nobody is lost.
	Reply(ctx context.Context, address string, r CommandReply) error

	// Replies calls receive for every reply to the address that it returns,
	// until Close. Receive does not block and is never called after Close has
	// returned. It is called once in a Commands' life.
	Replies(ctx context.Context, receive func(CommandReply)) (address string, err error)

	// Queues describes the queues that exist, in the order of their names. A
	// partial failure is an error.
	Queues(ctx context.Context) ([]QueueStatus, error)

	// Dead goes through the dead letters of a queue, oldest first, up to those
	// that were there at its start. The first error ends it.
	Dead(ctx context.Context, queue string) iter.Seq2[DeadCommand, error]

	// RemoveDead removes a dead letter. It returns [ErrNoDeadLetter] if there
	// is none with this ref.
	RemoveDead(ctx context.Context, queue, ref string) error

	// Close ends what the broker started and waits for it. The connection
	// stays its owner's. Consumers are closed before. A second call does
	// nothing.
	Close()
}

// ConsumeOptions say how a queue is consumed.
type ConsumeOptions struct {
	// Owner is the service that the queue belongs to.
	Owner string
	// Lease is how long a delivery belongs to its worker without a sign of
	// life. Brokers that watch connections instead may ignore it.
	Lease time.Duration
	// MaxAttempts is how often a worker will begin a command. A broker that
	// limits deliveries itself, as a net under workers that die before they
	// can bury a command, does so above it.
	MaxAttempts int
	// Concurrency is the most deliveries that will be in work here.
	Concurrency int
	// Done reports whether the inbox remembers the command with this id as
	// carried out; nil without an inbox. A broker that would make a dead letter
	// of a command itself asks it first, and takes the command off the queue
	// instead. After an error nobody knows, and it asks again later. It may wait
	// for an attempt that runs, until ctx ends.
	Done func(ctx context.Context, id string) (bool, error)
}

// A CommandConsumer receives from a queue. Receive is called by one goroutine.
type CommandConsumer interface {
	// Receive blocks until there is at least one command, and returns at most
	// max. It takes no more from the broker than Commands has room for: the sum
	// of max and what is in work never exceeds Concurrency. When ctx ends, or has ended
	// before, it returns its cause, and what it had taken meanwhile goes back to the
	// broker: except deliveries whose attempt is the last one, if the broker
	// counts what it takes back. Those it returns together with the cause, since
	// they would become dead letters that nobody has begun.
	Receive(ctx context.Context, max int) ([]CommandDelivery, error)
	// Close gives back what was received and not returned. Deliveries that are
	// in work stay valid.
	Close()
}

// A CommandDelivery is a command in the hands of a worker. Of Ack, Retry and
// Bury one is called at last, more than once only after an error; Extend may
// run at the same time. They block for a round trip at most. An error that wraps
// [ErrLeaseLost] says that the command has gone back to its queue, and that
// nothing more can be done with this delivery.
type CommandDelivery interface {
	// Envelope returns the command. With an error, what could be read of it.
	Envelope() (*CommandEnvelope, error)
	// Attempt counts deliveries of this command from 1, this one included, as
	// far as the broker knows: more than were begun if it gave some to workers that
	// died before.
	Attempt() int
	// Ack takes the command off the queue. Nil means that the broker has
	// confirmed it.
	Ack(ctx context.Context) error
	// Retry gives the command back, to be delivered after a while.
	Retry(ctx context.Context, after time.Duration) error
	// Bury stores the command as a dead letter and then takes it off the
	// queue; called again after an error it makes no second one.
	Bury(ctx context.Context, d DeadLetter) error
	// Extend prolongs the lease. Nil means that the broker has heard it, or
	// that it keeps no leases.
	Extend(ctx context.Context) error
}

// A CommandEnvelope is a command on its way.
type CommandEnvelope struct {
	Command
	// Sender is the service that sent it, Sent the time by its clock.
	Sender string
	Sent   time.Time
	// At, if it is set, is when the command may be delivered at the earliest.
	At time.Time
	// Dedupe identifies this sending: see [CommandBroker].Publish. It need not be
	// there in a delivery.
	Dedupe string
	// ReplyTo is where a reply goes, "" if nobody waits, and Call what the
	// caller knows it by.
	ReplyTo string
	Call    string
}

// A CommandReply answers a [Commands.Call].
type CommandReply struct {
	Call string
	Body []byte
	// Failed is the reason if the command became a dead letter, "" otherwise.
	Failed   DeadReason
	Error    string
	Attempts int
}

// A QueueStatus describes a queue at one moment.
type QueueStatus struct {
	Queue string `json:"queue"`
	Owner string `json:"owner"` // "" if nobody has served it yet
	// Waiting have not been delivered yet, Running are with a worker or wait
	// for another attempt, Delayed wait for their time. A delayed command may count
	// as one of the others where the broker cannot tell.
	Waiting uint64 `json:"waiting"`
	Running uint64 `json:"running"`
	Delayed uint64 `json:"delayed"`
	Dead    uint64 `json:"dead"`
	// Oldest is when the oldest command that is still there was stored; zero
	// if there is none.
	Oldest time.Time `json:"oldest,omitzero"`
}
