package cdc

import "time"

// progress tells Options.Progress how far a snapshot is.
type progress struct {
	tell func(Progress)
	now  Progress
	last time.Time
}

const progressInterval = 200 * time.Millisecond

func newProgress(c *config, tables []snapshotTable) *progress {
	p := &progress{tell: c.Progress, now: Progress{Tables: len(tables)}}
	for _, t := range tables {
		if t.rows > 0 {
			p.now.EstimatedRows += int64(t.rows)
		}
	}
	return p
}

func (p *progress) row(t snapshotTable) {
	p.now.Rows++
	if p.tell == nil || p.now.Rows%256 != 0 || time.Since(p.last) < progressInterval {
		return
	}
	p.now.Table, p.last = t.schema+"."+t.name, time.Now()
	p.tell(p.now)
}

func (p *progress) tableDone() { p.now.TablesDone++ }

func (p *progress) done() {
	p.now.Done = true
	if p.tell != nil {
		p.tell(p.now)
	}
}
