package cdc

import "time"

// progress tells Options.Progress how far a snapshot is.
type progress struct {
	tell             func(Progress)
	now              Progress
	began, last      time.Time
	pages, pagesDone int64
}

const progressInterval = 200 * time.Millisecond

func newProgress(c *config, tables []snapshotTable) *progress {
	p := &progress{tell: c.Progress, now: Progress{Tables: len(tables)}, began: time.Now()}
	for i := range tables {
		if tables[i].rows > 0 {
			p.now.EstimatedRows += int64(tables[i].rows)
		}
		p.pages += tables[i].size.pages
	}
	return p
}

// rows counts rows of a table that were handed over.
func (p *progress) rows(t *snapshotTable, n int) {
	if name := t.schema + "." + t.name; p.now.Table != name {
		p.now.Table, p.now.TableRows = name, 0
	}
	p.now.Rows += int64(n)
	p.now.TableRows += int64(n)
	if p.tell != nil && time.Since(p.last) >= progressInterval {
		p.say()
	}
}

func (p *progress) chunkDone(c *chunk) { p.pagesDone = min(p.pages, p.pagesDone+c.pages) }

func (p *progress) tableDone() { p.now.TablesDone++ }

func (p *progress) done() {
	p.now.Done = true
	p.pagesDone = p.pages
	if p.tell != nil {
		p.say()
	}
}

func (p *progress) say() {
	p.last = time.Now()
	p.now.Elapsed, p.now.ETA = p.last.Sub(p.began), 0
	if p.now.Elapsed > 0 {
		p.now.RowsPerSecond = float64(p.now.Rows) / p.now.Elapsed.Seconds()
	}
	if p.pagesDone > 0 {
		p.now.ETA = time.Duration(float64(p.now.Elapsed) * float64(p.pages-p.pagesDone) / float64(p.pagesDone))
	}
	p.tell(p.now)
}
