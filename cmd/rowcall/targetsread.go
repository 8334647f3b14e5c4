package main

import (
	"errors"
	"fmt"
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
		if kind := targetKind(o.target); o.name != "" && kind == o.target && !o.latest {
			faults = append(faults, o.at.errorf("there is one %s at most, and it needs no name", kind))
			continue
		}
		if i := slices.IndexFunc(all, func(other *targetOptions) bool { return other.called() == o.called() }); i >= 0 {
			faults = append(faults, o.at.errorf("this is the second %s, after the one in line %d: give each a name of its own", o.called(), all[i].at.line))
			continue
		}
		if reason, other := o.clash(all); other != nil {
			faults = append(faults, o.writerAt.errorf("%s; make one place of them, with the tables of both", fmt.Sprintf(reason, other.at.line)))
			continue
		}
		all = append(all, o)
	}
	return all, faults
}

func (a *app) readTarget(n *node) (*targetOptions, []error) {
	o := &targetOptions{at: n.at, writerAt: n.at, keyAt: make(map[string]place)}
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
			o.keyAt[m.key] = m.value.at
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

// wrong returns what is wrong with the options as a whole, without a look at
// files. It never shows a password.
func (o *targetOptions) wrong() error {
	if err := o.wrongLatest(); err != nil {
		return err
	}
	login := o.login.withoutFiles()
	target, err := login.url(o.target)
	if err != nil {
		return err
	}
	switch targetKind(o.target) {
	case kindKafka:
		_, err = o.newKafka(target, "x", &o.kafka)
	case kindAMQP:
		if login.encrypt && !strings.HasPrefix(target, kindAMQPS+"://") {
			return errors.New("ca, cert, key and server-name are for amqps://")
		}
		_, err = login.connector(o.target)
	}
	return err
}

// clash returns another place that this one cannot be beside, and why, with a verb
// for its line.
func (o *targetOptions) clash(others []*targetOptions) (reason string, other *targetOptions) {
	for _, other := range others {
		if o.latest && other.latest && targetKind(o.target) == kindNATS && o.target == other.target && o.bucket == other.bucket {
			return "this place keeps its state in the same bucket as the one in line %d", other
		}
		brokers := other.brokers()
		if !slices.ContainsFunc(o.brokers(), func(one string) bool { return slices.Contains(brokers, one) }) {
			continue
		}
		if o.writer() == other.writer() && o.writer() != "" {
			return "this place is on the same Kafka as the one in line %d, with the same transactional-id: each would put the other out", other
		}
		if o.latest == other.latest {
			return "this place is on the same Kafka as the one in line %d, and both would write each event to the same topics of the database: twice, and past each other's end", other
		}
	}
	return "", nil
}

// writer returns what tells transactional ids apart, "" if there is none.
func (o *targetOptions) writer() string {
	switch {
	case o.kafka.NoTransactions:
		return ""
	case o.kafka.TransactionalID != "":
		return o.kafka.TransactionalID
	}
	return fmt.Sprintf("default, latest %t", o.latest)
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
	if o.latest {
		return targetKind(o.target) + "-latest"
	}
	return targetKind(o.target)
}
