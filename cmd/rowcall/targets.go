package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// Where events go, besides the URLs of brokers.
const (
	toNATS    = "nats"
	toStdout  = "stdout"
	toDiscard = "discard"
)

const kafkaScheme = "kafka://"

// targets is the flag that says where the events go, once for each place.
type targets struct {
	list []string
	set  bool
	none string // the default
	// options has what a file says of those of list, by their place there.
	options map[int]*targetOptions
}

func newTargets(none string) *targets { return &targets{list: []string{none}, none: none} }

// journal returns the place whose stream can be the journal, -1 if there is none.
func (t *targets) journal() int {
	for i, one := range t.list {
		if one == toNATS && !t.at(i).latest {
			return i
		}
	}
	return -1
}

func (t *targets) hasNATS() bool { return slices.Contains(t.list, toNATS) }

// String implements pflag.Value. It never shows a password.
func (t *targets) String() string {
	var shown []string
	for _, one := range t.list {
		if scheme, rest, ok := strings.Cut(one, "://"); ok {
			shown = append(shown, scheme+"://"+behindUser(rest))
			continue
		}
		shown = append(shown, behindUser(one))
	}
	return strings.Join(shown, " ")
}

// behindUser returns what follows the user and the password of an address.
func behindUser(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// Set implements pflag.Value. The first call replaces the default, later ones
// add to it. What is wrong is for check to say: pflag quotes what Set refuses,
// and that may hold a password.
func (t *targets) Set(s string) error {
	if !t.set {
		t.list, t.set = nil, true
	}
	t.list = append(t.list, s)
	return nil
}

// reset makes it the default again.
func (t *targets) reset() { *t = *newTargets(t.none) }

// take makes the list that of a file.
func (t *targets) take(all []*targetOptions) {
	t.list, t.set, t.options = nil, true, make(map[int]*targetOptions)
	for i, o := range all {
		t.list = append(t.list, o.target)
		t.options[i] = o
	}
}

// at returns the options of one of the list.
func (t *targets) at(i int) *targetOptions {
	if o := t.options[i]; o != nil {
		return o
	}
	return &targetOptions{target: t.list[i]}
}

// check is told how the flag is spelled.
func (t *targets) check(flag string) error {
	var faults []error
	seen := make(map[string]bool)
	for i, one := range t.list {
		if err := wrongTarget(one); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", flag, err))
		}
		faults = append(faults, t.at(i).wrongTogether()...)
		name := t.at(i).called()
		if seen[name] {
			faults = append(faults, fmt.Errorf("%s names %s twice: one is enough", flag, name))
		}
		seen[name] = true
	}
	return usage(faults...)
}

// wantTarget says what a target can be.
const wantTarget = "want nats, stdout, discard, kafka://host:port, or amqp://host:port"

// wrongTarget returns what is wrong with a target. It never shows a password.
func wrongTarget(one string) error {
	scheme, _, isURL := strings.Cut(one, "://")
	switch {
	case strings.HasPrefix(one, kafkaScheme):
		if _, err := kafka.New(one, "x", nil); err != nil {
			return errors.New(strings.TrimPrefix(err.Error(), "kafka: "))
		}
	case isAMQP(one):
		if _, err := rabbitmq.NewConnector(one, nil); err != nil {
			return errors.New(strings.TrimPrefix(err.Error(), "rabbitmq: "))
		}
	case isURL:
		return fmt.Errorf("unknown scheme %q: %s", behindUser(scheme), wantTarget)
	case one != toNATS && one != toStdout && one != toDiscard:
		return fmt.Errorf("unknown %q: %s", behindUser(one), wantTarget)
	}
	return nil
}

// Type implements pflag.Value.
func (t *targets) Type() string { return "nats|stdout|discard|URL" }
