package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A GroupPartition is what one member of a group reads at a time.
type GroupPartition struct {
	// Collection is whose partition it is, as [listeners.Schema.Collection]
	// returns it; empty where all collections of the source share partitions
	// (JetStream).
	Collection string
	// Number counts from 0, see [Partition].
	Number int
}

// String returns the number with three digits, after the collection and "/" if
// there is one.
func (p GroupPartition) String() string {
	if p.Collection == "" {
		return fmt.Sprintf("%03d", p.Number)
	}
	return fmt.Sprintf("%s/%03d", p.Collection, p.Number)
}

// A GroupStart is where a new group begins. At most one field is used, the
// first that is set, in this order. The zero GroupStart is the end: from now on.
type GroupStart struct {
	// After is the position before the first event wanted. If it is older than
	// all that is stored, the group begins with the oldest.
	After listeners.Position
	// Time is when the broker had stored the first message wanted.
	Time time.Time
	// Oldest asks for all that is stored.
	Oldest bool
}

// A GroupMark is a checkpoint of a partition: everything before Next is handled.
type GroupMark struct {
	// Next is the broker's number of the first message to read: a stream
	// sequence, or an offset.
	Next uint64
	// Stream says which stream or topic Next counts in, if the broker can tell one from
	// another of the same name: when it was created.
	Stream int64
	// Position is that of the last part before Next, the zero Position if there
	// was none.
	Position listeners.Position
	// Snapshot says that Next lies within a snapshot that began with a Reset.
	Snapshot bool
	// Fresh says that the partition has nothing before Next.
	Fresh bool
}

// A GroupPart is one message of a partition, or a place in it.
type GroupPart struct {
	// Part is the message. Without Some there is none: only that the partition
	// was read up to Next.
	Part Part
	Some bool
	// Next is the number of the message behind it.
	Next uint64
	// Complete says that nothing comes behind it in this partition that belongs
	// to the transaction or snapshot that is under way there.
	Complete bool
}

// A GroupMember is what a broker needs to know of who joins a group.
type GroupMember struct {
	Group string // its name, not empty
	Name  string // of the member: unique, and safe in [EscapeToken]'s alphabet
	Start GroupStart
	// Lease is how long a partition stays with a member that gives no sign of
	// life.
	Lease time.Duration
	// DrainTimeout is how long Own may take after the claim was revoked, about.
	DrainTimeout time.Duration
	Logger       *slog.Logger // never nil
	// Own handles a partition. Join calls it on a goroutine of its own for each
	// claim. It returns when nothing of the partition is handled any more and
	// its checkpoint is stored: then the broker lets go of the partition. Held
	// has to end, with a [GroupLostError], as soon as the partition may belong to
	// somebody else, and only then. An error of Own ends the membership; if it is a
	// [GroupStuckError], the partition is not let go of but left to its lease.
	Own func(held context.Context, c GroupClaim) error
}

// A GroupBroker divides the partitions of one firehose among the members of
// groups. Use [Group], not the broker.
type GroupBroker interface {
	// Join makes this process a member and blocks until ctx ends. Then it
	// revokes all claims, waits until Own has returned for each, leaves the group
	// and returns nil. It revokes what other members are to have, too. It retries what may
	// pass for as long as ctx lives; another error, such as one of Own, makes it
	// leave the group and return that. May be called concurrently, for other
	// members; after it has returned, it may be called again.
	Join(ctx context.Context, m *GroupMember) error
}

// A GroupClaim is a partition that a member has. Partition, Revoked and
// Checkpoint may be called concurrently and do not block; Read is called by one
// goroutine at a time, Commit by one at a time as well, which may be another.
// After Own has returned, nothing may be called.
type GroupClaim interface {
	Partition() GroupPartition
	// Revoked returns a channel, always the same one, that is closed when the
	// member is to give up the partition.
	Revoked() <-chan struct{}
	// Checkpoint returns where to go on: what was committed last by whoever had
	// the partition, or the group's start.
	Checkpoint() GroupMark
	// Read calls take with the parts from a mark on, in order, none missing and
	// none twice, until ctx ends or take fails, whose error it returns. It makes up
	// for connections and servers that fail. Take may block; it keeps the parts
	// but not the slice. If messages from the mark on are gone, or may be, Read
	// returns a [GroupHistoryError], and take has not seen anything behind the
	// hole. After any error Read may be called again.
	Read(ctx context.Context, from GroupMark, take func([]GroupPart) error) error
	// Commit stores the checkpoint, so that it survives the member and, as far as
	// the broker's acknowledgements say so, the broker. It may block until ctx
	// ends. After an error the old or the new one is stored, and Commit may be
	// tried again. It stores nothing once the partition is somebody else's: then
	// its error wraps a [GroupLostError].
	Commit(ctx context.Context, at GroupMark) error
}
