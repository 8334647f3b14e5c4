package cdc

import "time"

// Hurry makes a source look at its slot this often, and wait this long before it
// begins a snapshot again.
func (s *Source) Hurry(d time.Duration) { s.c.watchInterval, s.c.snapshotPause = d, d }

// SetChunkPages makes a snapshot's queries smaller than tables of a test.
func (s *Source) SetChunkPages(pages int64) { s.c.chunkPages = pages }
