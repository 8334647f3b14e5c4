package pgoutput

import "time"

// The first byte of the messages that protocol versions 2 (streaming of
// transactions in progress) and 3 (two-phase commit) add.
const (
	TypeStreamStart      = 'S'
	TypeStreamStop       = 'E'
	TypeStreamCommit     = 'c'
	TypeStreamAbort      = 'A'
	TypeBeginPrepare     = 'b'
	TypePrepare          = 'P'
	TypeCommitPrepared   = 'K'
	TypeRollbackPrepared = 'r'
	TypeStreamPrepare    = 'p'
)

// A StreamStart begins a block of messages of one transaction in progress. In
// the block every Relation, Type, Insert, Update, Delete, Truncate and logical
// message has the number of its subtransaction behind the type byte; see
// [CutXID].
type StreamStart struct {
	XID   uint32
	First bool // of this transaction's blocks
}

// A StreamAbort rolls a streamed transaction back or, if SubXID differs from
// XID, one of its subtransactions. Version 4 adds where and when, which nobody
// needs.
type StreamAbort struct{ XID, SubXID uint32 }

// A StreamCommit says that a streamed transaction has committed.
type StreamCommit struct {
	XID uint32
	Commit
}

// A Prepare ends a transaction that was prepared, or, as BeginPrepare, begins
// one. PrepareLSN is where its record starts.
type Prepare struct {
	PrepareLSN, EndLSN uint64
	Time               time.Time
	XID                uint32
	GID                string
}

// A CommitPrepared says that a prepared transaction has committed.
type CommitPrepared struct {
	Commit
	XID uint32
	GID string
}

// A RollbackPrepared says that a prepared transaction was rolled back. EndLSN is
// the first byte after the record.
type RollbackPrepared struct {
	PrepareEndLSN, EndLSN     uint64
	PrepareTime, RollbackTime time.Time
	XID                       uint32
	GID                       string
}

// ParseStreamStart reads a StreamStart.
func ParseStreamStart(msg []byte) (StreamStart, error) {
	r := fields(msg)
	s := StreamStart{XID: r.uint32(), First: r.byte() == 1}
	return s, r.end()
}

// ParseStreamAbort reads a StreamAbort of any version.
func ParseStreamAbort(msg []byte) (StreamAbort, error) {
	r := fields(msg)
	a := StreamAbort{XID: r.uint32(), SubXID: r.uint32()}
	if len(r.rest) == 16 {
		r.uint64()
		r.time()
	}
	return a, r.end()
}

// ParseStreamCommit reads a StreamCommit.
func ParseStreamCommit(msg []byte) (StreamCommit, error) {
	r := fields(msg)
	c := StreamCommit{XID: r.uint32(), Commit: r.commit()}
	return c, r.end()
}

// ParseBeginPrepare reads a BeginPrepare.
func ParseBeginPrepare(msg []byte) (Prepare, error) {
	r := fields(msg)
	p := r.prepare()
	return p, r.end()
}

// ParsePrepare reads a Prepare or a StreamPrepare.
func ParsePrepare(msg []byte) (Prepare, error) {
	r := fields(msg)
	r.byte() // flags, unused
	p := r.prepare()
	return p, r.end()
}

// ParseCommitPrepared reads a CommitPrepared.
func ParseCommitPrepared(msg []byte) (CommitPrepared, error) {
	r := fields(msg)
	c := CommitPrepared{Commit: r.commit(), XID: r.uint32(), GID: r.string()}
	return c, r.end()
}

// ParseRollbackPrepared reads a RollbackPrepared.
func ParseRollbackPrepared(msg []byte) (RollbackPrepared, error) {
	r := fields(msg)
	r.byte() // flags, unused
	p := RollbackPrepared{
		PrepareEndLSN: r.uint64(), EndLSN: r.uint64(), PrepareTime: r.time(), RollbackTime: r.time(),
		XID: r.uint32(), GID: r.string(),
	}
	return p, r.end()
}

// CutXID takes the subtransaction's number out of a message of a block and
// returns it with the message as it is outside of one. It overwrites msg.
func CutXID(msg []byte) (xid uint32, plain []byte, err error) {
	r := fields(msg)
	if xid = r.uint32(); r.failed {
		return 0, nil, ErrTruncated
	}
	msg[4] = msg[0]
	return xid, msg[4:], nil
}

func (r *reader) prepare() Prepare {
	return Prepare{PrepareLSN: r.uint64(), EndLSN: r.uint64(), Time: r.time(), XID: r.uint32(), GID: r.string()}
}

func (r *reader) commit() Commit {
	r.byte() // flags, unused
	return Commit{CommitLSN: r.uint64(), EndLSN: r.uint64(), CommitTime: r.time()}
}
