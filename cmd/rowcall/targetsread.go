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
		all = append(all, o)
	}
	return all, faults
}

func (a *app) readTarget(n *node) (*targetOptions, []error) {
	o := &targetOptions{at: n.at}
	target := func(value *node) []error {
		o.at = value.at
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
