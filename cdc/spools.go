package cdc

import (
	"errors"
	"fmt"
	"os"
)

// spools are those of one connection. Their memory is bounded together: beyond
// max, each that grows goes to disk.
type spools struct {
	dir  string
	max  int
	used int
	open map[uint32]*spool
}

// spoolBuffer is what is written at once; under pressure it is less, so that
// many transactions at a time need little memory.
const (
	spoolBuffer = blockSize
	smallSpool  = 16 << 10
)

// defaultSpoolBytes is small beside what the server keeps before it streams a
// transaction at all (logical_decoding_work_mem, 64 MB by default).
const defaultSpoolBytes = 8 << 20

// checkSpoolDir finds out whether a file can be made where large transactions will be
// kept, which is else found out when the first one comes.
func (c *config) checkSpoolDir() error {
	if c.SpoolDir == "" || c.Streaming == StreamingOff {
		return nil
	}
	file, err := os.CreateTemp(c.SpoolDir, "rowcall-spool-*")
	if err == nil {
		err = errors.Join(file.Close(), os.Remove(file.Name()))
	}
	if err != nil {
		return fmt.Errorf("spool dir (--spool-dir) %s, for large transactions in progress: %w; make the directory, let this user write there, or choose another", c.SpoolDir, err)
	}
	return nil
}

func newSpools(c *config) *spools {
	return &spools{dir: c.SpoolDir, max: c.MaxSpoolBytes, open: make(map[uint32]*spool)}
}

// of returns the spool of a transaction, a new one if there is none.
func (s *spools) of(xid uint32) *spool {
	sp := s.open[xid]
	if sp == nil {
		sp = &spool{xid: xid, last: xid}
		s.open[xid] = sp
	}
	return sp
}

// add appends a message to one of them.
func (s *spools) add(sp *spool, subXID uint32, msg []byte, relation uint64) error {
	before := len(sp.mem)
	sp.add(subXID, msg, relation)
	s.used += len(sp.mem) - before
	enough := spoolBuffer // for one that has a file
	switch {
	case s.used > s.max:
		enough = smallSpool
	case sp.file == nil:
		return nil
	}
	if len(sp.mem) < enough {
		return nil
	}
	s.used -= len(sp.mem)
	return sp.spill(s.dir)
}

func (s *spools) rollBack(sp *spool, subXID uint32) error {
	before := len(sp.mem)
	err := sp.rollBack(subXID)
	s.used += len(sp.mem) - before
	return err
}

// take removes a spool, nil if there is none; the caller closes it.
func (s *spools) take(xid uint32) *spool {
	sp := s.open[xid]
	if sp != nil {
		s.used -= len(sp.mem)
		delete(s.open, xid)
	}
	return sp
}

func (s *spools) close() error {
	var errs []error
	for _, sp := range s.open {
		errs = append(errs, sp.close())
	}
	clear(s.open)
	s.used = 0
	return errors.Join(errs...)
}
