package main

import (
	"slices"
	"strings"

	"github.com/rowcall/rowcall/sinks/kafka"
)

// readTargets reads the places of a file: one text, or a list of texts and
// mappings.
func (a *app) readTargets(n *node) ([]*targetOptions, []error) {
	items := []*node{n}
	if n.kind == nodeList {
		items = n.items
	}
	var all []*targetOptions
	var faults []error
	if len(items) == 0 {
		faults = append(faults, n.at.errorf("the list is empty; leave the key out for the default, which is nats"))
	}
	for _, item := range items {
		o, itsFaults := a.readTarget(item)
		faults = append(faults, itsFaults...)
		if len(itsFaults) > 0 {
			continue
		}
		if kind := targetKind(o.target); o.name != "" && kind == o.target {
			faults = append(faults, o.at.errorf("there is one %s at most, and it needs no name", kind))
			continue
		}
		if i := slices.IndexFunc(all, func(other *targetOptions) bool { return other.called() == o.called() }); i >= 0 {
			faults = append(faults, o.at.errorf("this is the second %s, after the one in line %d: give each a name of its own", o.called(), all[i].at.line))
			continue
		}
		if i := slices.IndexFunc(all, o.fences); i >= 0 {
			faults = append(faults, o.writerAt.errorf("this place is on the same Kafka as the one in line %d, with the same transactional id: each would put the other out; make one place of them, with the tables of both", all[i].at.line))
			continue
		}
		all = append(all, o)
	}
	return all, faults
}

func (a *app) readTarget(n *node) (*targetOptions, []error) {
	o := &targetOptions{at: n.at, writerAt: n.at}
	target := func(value *node) []error {
		o.at, o.writerAt = value.at, value.at
		text, err := a.readScalar(value, valueText, wrongTarget)
		if err != nil {
			return []error{err}
		}
		o.target = text
		return nil
	}
	if n.kind != nodeMapping {
		return o, target(n)
	}
	i := slices.IndexFunc(n.members, func(m pair) bool { return m.key == keyTarget })
	if i < 0 {
		return o, []error{n.at.errorf("the key %q is missing: %s", keyTarget, wantTarget)}
	}
	faults := target(n.members[i].value)
	kind := targetKind(o.target)
	all := targetSettings()
	for _, m := range n.members {
		if m.key == keyTarget {
			continue
		}
		i := slices.IndexFunc(all, func(s targetSetting) bool { return s.key == m.key })
		switch {
		case i < 0:
			faults = append(faults, m.at.errorf("unknown key %q; %s", m.key, nearest(m.key, targetKeys(kind))))
		case o.target != "" && !all[i].fits(kind):
			faults = append(faults, m.at.errorf("%q is not for %s, but for %s; there are %s",
				m.key, kind, strings.Join(all[i].of, " and "), strings.Join(slices.Sorted(slices.Values(targetKeys(kind))), ", ")))
		default:
			_, err := a.readValue(m.value, all[i].kind, func(text string) error { return all[i].set(o, text) })
			faults = append(faults, err)
			if m.key == keyWriter {
				o.writerAt = m.value.at
			}
		}
	}
	if faults = slices.DeleteFunc(faults, func(err error) bool { return err == nil }); len(faults) == 0 {
		if err := o.wrong(); err != nil {
			faults = append(faults, o.at.errorf("%w", err))
		}
	}
	return o, faults
}

// wrong returns what is wrong with the options as a whole. It never shows a
// password.
func (o *targetOptions) wrong() error {
	if targetKind(o.target) != kindKafka {
		return nil
	}
	_, err := kafka.New(o.target, "x", &o.kafka)
	return err
}

// fences reports whether two places are of Kafka, have a broker in common, and
// write under the same transactional id.
func (o *targetOptions) fences(other *targetOptions) bool {
	if o.kafka.NoTransactions || other.kafka.NoTransactions || o.kafka.TransactionalID != other.kafka.TransactionalID {
		return false
	}
	brokers := other.brokers()
	return slices.ContainsFunc(o.brokers(), func(one string) bool { return slices.Contains(brokers, one) })
}

// brokers returns those of a place of Kafka, host:port, and nil for others.
func (o *targetOptions) brokers() []string {
	if targetKind(o.target) != kindKafka {
		return nil
	}
	f, err := kafka.New(o.target, "x", &o.kafka)
	if err != nil {
		return nil // found by wrong
	}
	return strings.Split(f.Where(), ",")
}

// targetKeys are the keys that a place of a kind has; of any for "".
func targetKeys(kind string) []string {
	keys := []string{keyTarget}
	for _, s := range targetSettings() {
		if kind == "" || s.fits(kind) {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// called returns the name of a place.
func (o *targetOptions) called() string {
	if o.name != "" {
		return o.name
	}
	return targetKind(o.target)
}
