package sinks

import "github.com/rowcall/rowcall/listeners"

// End says that the transaction or snapshot under way is complete, although its
// last part was not added and will not be: it is for another reader, as in
// another partition. If nothing is under way it does nothing.
func (a *Assembler) End(emit func(*listeners.Batch) error) error {
	if a.told && a.open != nil && a.open.Kind == listeners.Changes {
		return a.close(emit)
	}
	if !a.told && !a.rows {
		return nil
	}
	p := &Part{Position: a.last}
	if a.open != nil {
		p.Source, p.Tx = a.open.Source, a.open.Tx
	}
	return a.endSnapshot(p, a.last, emit)
}

// within reports whether a snapshot that Live will end is under way.
func (a *Assembler) within() bool { return a.rows && a.fill }
