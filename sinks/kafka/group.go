package kafka

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// DefaultNewTopics is how long it takes until a group reads a table that had no
// topic, unless options say otherwise.
const DefaultNewTopics = 10 * time.Second

// lingerComplete is how long a transaction whose end is not in a partition is
// waited for, where no Kafka transaction says that it is complete.
const lingerComplete = 200 * time.Millisecond

// GroupsOptions set up [Groups]. Nil and zero mean the defaults.
//
// How long the brokers remember a group none of whose members is there is a
// setting of theirs: offsets.retention.minutes, 7 days by default. After that its
// checkpoints are gone, and it begins anew at [sinks.GroupOptions].Start: with the
// default Start, what was stored meanwhile is skipped. Raise it for groups that may
// be away for longer.
type GroupsOptions struct {
	// NewTopics is how long it takes until a group reads a topic that is new.
	// Default [DefaultNewTopics].
	NewTopics time.Duration
	// Client are further options of the Kafka client, such as a dialer or TLS
	// certificates. They may not change what is consumed and how.
	Client []kgo.Opt
}

// Groups lets the processes of a [sinks.Group] share the partitions of a
// database's topics. Its groups are Kafka's consumer groups of the same name: the
// brokers assign partitions (cooperative-sticky), store checkpoints as committed
// offsets, and refuse those of a member that is not one any more. What the
// usual tools say of groups and their lag holds for them.
//
// A partition is one of one topic, so of one table: a batch holds what of a
// transaction lies there, and a Reset names that table. Partitions with the
// same number of several tables may have different members. A key has one
// partition of one topic.
//
// A batch is complete when the Kafka transaction that brought it is. What a
// firehose stored in several Kafka transactions (see the package documentation)
// comes as several batches. With [Options].NoTransactions a transaction
// whose end is in another partition is taken for complete when nothing more has come for
// 200ms. A snapshot is complete in a partition, and Live is told there, with the
// next change that it gets.
//
// The partition of a listener that is stuck stays with the member for a lease,
// and only then Run ends with the [sinks.GroupStuckError].
//
// A group that begins from now on should have a topic to begin with: where there
// is none yet, nothing can remember that it has begun.
type Groups struct {
	brokers  *brokers
	database string
	opts     GroupsOptions
}

var _ sinks.GroupBroker = (*Groups)(nil)

// NewGroups returns the groups of a database's topics. The URL is as [New] has
// it. It starts nothing and talks to nobody.
func NewGroups(brokersURL, database string, opts *GroupsOptions) (*Groups, error) {
	var o GroupsOptions
	if opts != nil {
		o = *opts
	}
	var faults []string
	if o.NewTopics < 0 {
		faults = append(faults, "NewTopics must not be negative")
	}
	if o.NewTopics == 0 {
		o.NewTopics = DefaultNewTopics
	}
	if database == "" {
		faults = append(faults, "the database must have a name")
	}
	b, err := parseURL(brokersURL)
	if err != nil {
		faults = append(faults, err.Error())
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("kafka: %s", strings.Join(faults, "; "))
	}
	return &Groups{brokers: b, database: database, opts: o}, nil
}

// topics matches the names of the database's topics.
func (g *Groups) topics() string {
	return "^" + regexp.QuoteMeta(sinks.DatabaseAddress(g.database)) + `\.[^.]+\.[^.]+$`
}

// collection returns what a topic holds, as [listeners.Schema.Collection].
func (g *Groups) collection(topic string) string {
	namespace, table, _ := strings.Cut(topic[len(sinks.DatabaseAddress(g.database))+1:], ".")
	// What is no escaped token was not made by a firehose.
	namespace, _ = sinks.UnescapeToken(namespace)
	table, _ = sinks.UnescapeToken(table)
	return namespace + "." + table
}

// options are those of a client that is a member.
func (g *Groups) options(m *sinks.GroupMember) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.ClientID("rowcall-" + m.Name), kgo.WithLogger(clientLog{m.Logger}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500 * time.Millisecond),
	}, append(g.brokers.options, g.opts.Client...)...)
}

// errSilent ends a session whose lease is over by the own clock.
var errSilent = errors.New("the brokers did not answer for the time of the lease")

// Join implements [sinks.GroupBroker].
func (g *Groups) Join(ctx context.Context, m *sinks.GroupMember) error {
	for {
		err := g.session(ctx, m)
		switch {
		case err == nil, ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, errSilent)):
			return nil
		case !errors.Is(err, errSilent):
			return fmt.Errorf("group %s: %w", m.Group, err)
		}
		m.Logger.WarnContext(ctx, "joining the group again", "group", m.Group, "reason", err)
	}
}
