package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowcall/rowcall/sinks/kafka"
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
}

func newTargets() *targets { return &targets{list: []string{toNATS}} }

func (t *targets) has(one string) bool { return slices.Contains(t.list, one) }

// String implements pflag.Value. It never shows a password.
func (t *targets) String() string {
	var shown []string
	for _, one := range t.list {
		if scheme, rest, ok := strings.Cut(one, "://"); ok {
			one = scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
		}
		shown = append(shown, one)
	}
	return strings.Join(shown, " ")
}

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
func (t *targets) reset() { *t = *newTargets() }

// check is told how the flag is spelled.
func (t *targets) check(flag string) error {
	var faults []error
	seen := make(map[string]bool)
	for _, one := range t.list {
		scheme, _, isURL := strings.Cut(one, "://")
		switch {
		case strings.HasPrefix(one, kafkaScheme):
			if _, err := kafka.New(one, "x", nil); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s", flag, strings.TrimPrefix(err.Error(), "kafka: ")))
			}
		case isURL:
			faults = append(faults, fmt.Errorf("%s has the scheme %q: want nats, stdout, discard, or kafka://host:port", flag, scheme))
		case one != toNATS && one != toStdout && one != toDiscard:
			faults = append(faults, fmt.Errorf("%s %q: want nats, stdout, discard, or kafka://host:port", flag, one))
		}
		if seen[scheme] {
			faults = append(faults, fmt.Errorf("%s names %s twice: one is enough", flag, scheme))
		}
		seen[scheme] = true
	}
	return usage(faults...)
}

// Type implements pflag.Value.
func (t *targets) Type() string { return "nats|stdout|discard|URL" }
