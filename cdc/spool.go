package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// A spool holds the messages of one transaction that has not committed yet: the
// newest in memory, what is before them in a file if there is one.
type spool struct {
	xid  uint32
	file *os.File
	size int64  // of the file
	mem  []byte // what follows the file
	// Where each subtransaction begins. While one is open, everything that comes
	// is its own or that of one inside it, so rolling it back cuts off the end.
	begins map[uint32]int64
	last   uint32 // the subtransaction of the last message
	// Where the first logical message since the last row of the transaction itself
	// is, plus one, or 0. It may belong to a subtransaction: see rollBack.
	said int64

	prepared bool // waits for COMMIT PREPARED or ROLLBACK PREPARED
}

// errMessageInDoubt says that what is rolled back may have a logical message. A
// transaction that is sent after its commit has no such doubt.
var errMessageInDoubt = errors.New("a savepoint of a transaction in progress was rolled back, and the server does not tell whether a logical message was in it")

// A message is preceded by its length, and a Relation followed by its number
// among those received.
const spoolHeader = 4

func (s *spool) end() int64 { return s.size + int64(len(s.mem)) }

// add appends a message. A relation's number is 0 for others.
func (s *spool) add(subXID uint32, msg []byte, relation uint64) {
	if subXID != s.last {
		s.last = subXID
		if _, known := s.begins[subXID]; !known {
			if s.begins == nil {
				s.begins = make(map[uint32]int64)
			}
			s.begins[subXID] = s.end()
		}
	}
	switch kind := msg[0]; {
	case kind == pgoutput.TypeMessage && s.said == 0:
		s.said = s.end() + 1
	case kind == pgoutput.TypeMessage, kind == pgoutput.TypeRelation:
	case subXID == s.xid: // no subtransaction is open
		s.said = 0
	}
	if relation == 0 {
		s.mem = binary.BigEndian.AppendUint32(s.mem, uint32(len(msg)))
		s.mem = append(s.mem, msg...)
		return
	}
	s.mem = binary.BigEndian.AppendUint32(s.mem, uint32(len(msg)+8))
	s.mem = append(s.mem, msg...)
	s.mem = binary.BigEndian.AppendUint64(s.mem, relation)
}

// rollBack cuts off a subtransaction. One of which nothing came, or that was
// cut off together with one around it, is no matter. But servers of all versions
// to date send a logical message as one of the whole transaction (pgoutput's
// pgoutput_message), so one that came before the subtransaction's first row may
// be its own: then nobody can tell.
func (s *spool) rollBack(subXID uint32) error {
	at, known := s.begins[subXID]
	if s.said > 0 {
		if !known || s.said <= at {
			return errMessageInDoubt
		}
		s.said = 0
	}
	delete(s.begins, subXID)
	s.last = 0 // whoever comes next may begin here
	if !known || at >= s.end() {
		return nil
	}
	if at >= s.size {
		s.mem = s.mem[:at-s.size]
		return nil
	}
	s.size, s.mem = at, s.mem[:0]
	if err := s.file.Truncate(at); err != nil {
		return s.failed(err)
	}
	return nil
}

// spill moves what is in memory to a file in dir.
func (s *spool) spill(dir string) error {
	if s.file == nil {
		file, err := os.CreateTemp(dir, "rowcall-spool-*")
		if err != nil {
			return s.failed(err)
		}
		// Where the system can, a file without a name goes with the process.
		_ = os.Remove(file.Name())
		s.file = file
	}
	if _, err := s.file.WriteAt(s.mem, s.size); err != nil {
		return s.failed(err)
	}
	s.size += int64(len(s.mem))
	if cap(s.mem) > 2*blockSize {
		s.mem = make([]byte, 0, blockSize)
	}
	s.mem = s.mem[:0]
	return nil
}

// each calls f with every message in order, and with the number of a relation.
// Messages stay valid. Nothing may be added afterwards.
func (s *spool) each(f func(msg []byte, relation uint64) error) error {
	var block []byte // what was read and not taken yet
	for at := int64(0); at < s.size; {
		need := spoolHeader
		if len(block) >= spoolHeader {
			need += int(binary.BigEndian.Uint32(block))
		}
		if len(block) < need {
			next := make([]byte, int(min(int64(max(blockSize, need)), s.size-at)))
			n := copy(next, block)
			if _, err := s.file.ReadAt(next[n:], at+int64(n)); err != nil {
				return s.failed(err)
			}
			if block = next; len(block) < need {
				return s.failed(io.ErrUnexpectedEOF)
			}
			continue
		}
		if err := call(f, block[spoolHeader:need:need]); err != nil {
			return err
		}
		block = block[need:]
		at += int64(need)
	}
	for block = s.mem; len(block) > 0; {
		need := spoolHeader + int(binary.BigEndian.Uint32(block))
		if err := call(f, block[spoolHeader:need:need]); err != nil {
			return err
		}
		block = block[need:]
	}
	return nil
}

func call(f func([]byte, uint64) error, msg []byte) error {
	if msg[0] != 'R' {
		return f(msg, 0)
	}
	n := len(msg) - 8
	return f(msg[:n:n], binary.BigEndian.Uint64(msg[n:]))
}

func (s *spool) failed(err error) error {
	return &spoolError{fmt.Errorf("spool transaction %d, which is in progress: %w", s.xid, err)}
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if removeErr := os.Remove(s.file.Name()); !errors.Is(removeErr, os.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}

// A spoolError ends the run: to connect again would fill the same disk again.
type spoolError struct{ err error }

func (e *spoolError) Error() string {
	return e.err.Error() + "; free space there, choose another SpoolDir, or do without Streaming"
}

func (e *spoolError) Unwrap() error { return e.err }
