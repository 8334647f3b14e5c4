package cdc

// SetChunkPages makes a snapshot's queries smaller than tables of a test.
func SetChunkPages(s *Source, pages int64) { s.c.chunkPages = pages }
