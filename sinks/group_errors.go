package sinks

import (
	"fmt"
	"time"
)

// A GroupLostError is the cause of the end of a listener's context when its
// member may not have the partition any more: others handle it now, from the last
// checkpoint on. The member goes on with its other partitions.
type GroupLostError struct {
	Group     string
	Partition GroupPartition
	Reason    string // such as that its lease is over
}

// Error implements error.
func (e *GroupLostError) Error() string {
	return fmt.Sprintf("group %s: partition %s is lost: %s; another member goes on from its checkpoint", e.Group, e.Partition, e.Reason)
}

// A GroupHistoryError says that messages behind a partition's checkpoint are
// gone, or may be.
type GroupHistoryError struct {
	Group     string
	Partition GroupPartition
	Wanted    uint64    // the checkpoint's Next
	Oldest    GroupMark // where what is left begins
	Replaced  bool      // it is another stream or topic than the checkpoint is of
}

// Error implements error.
func (e *GroupHistoryError) Error() string {
	what := fmt.Sprintf("messages from %d on are gone before they were handled, the oldest is %d", e.Wanted, e.Oldest.Next)
	if e.Replaced {
		what = fmt.Sprintf("the checkpoint %d is one of another stream or topic than there is now, or of one that was restored from a backup", e.Wanted)
	}
	return fmt.Sprintf("group %s, partition %s: %s; raise the retention, and set ResetOnLoss to go on behind a Reset with what is left, or use a new group",
		e.Group, e.Partition, what)
}

// A GroupListenerError says at which partition a listener failed, and ended its
// member. Err is the [listeners.ListenerError].
type GroupListenerError struct {
	Group     string
	Partition GroupPartition
	Err       error
}

// Error implements error.
func (e *GroupListenerError) Error() string {
	return fmt.Sprintf("group %s, partition %s: %v", e.Group, e.Partition, e.Err)
}

// Unwrap returns the subscription's error.
func (e *GroupListenerError) Unwrap() error { return e.Err }

// A GroupStuckError says that a listener has not returned although its context
// had ended. Another member may have the partition when the lease is over,
// even if the listener is still at it.
type GroupStuckError struct {
	Group     string
	Partition GroupPartition
	After     time.Duration // since the partition was to be given up
}

// Error implements error.
func (e *GroupStuckError) Error() string {
	return fmt.Sprintf("group %s, partition %s: the listener did not return within %s after it was told to stop; make it heed its context", e.Group, e.Partition, e.After)
}
