package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// Databases returns the names of the databases of which there are topics that a
// firehose of [New] stores in, sorted, as far as the user may see them. The URL is as
// for [New]. It blocks until the brokers have answered, or ctx ends, whose cause it
// then returns: in an [UnreachableError] if that is a deadline.
func Databases(ctx context.Context, brokersURL string, client ...kgo.Opt) ([]string, error) {
	l := &topicsLog{client: client, prefix: databaseTopics + ".", kind: databaseTopics}
	if _, err := l.source(brokersURL, nil, nil); err != nil {
		return nil, err
	}
	asker, err := kgo.NewClient(l.options()...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	defer asker.Close()
	var names []string
	err = l.persist(ctx, "ask which topics there are", func(ctx context.Context) (err error) {
		names, err = l.databases(ctx, kadm.NewClient(asker))
		return err
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &sinks.UnreachableError{Broker: "Kafka", Servers: l.brokers.seeds, Err: err, Remedy: wrongBroker}
	case err != nil:
		return nil, fmt.Errorf("kafka: the databases that there are topics of: %w", err)
	}
	return names, nil
}

// databaseTopics and latestTopics are what the names of topics begin with.
const (
	databaseTopics = "cdc"
	latestTopics   = "latest"
)

// databases returns the names of the databases of which there are topics of the log's
// kind, sorted.
func (l *topicsLog) databases(ctx context.Context, admin *kadm.Client) ([]string, error) {
	all, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range all {
		tokens := strings.Split(name, ".")
		if len(tokens) != 4 || tokens[0] != l.kind {
			continue
		}
		if database, err := sinks.UnescapeToken(tokens[1]); err == nil {
			names = append(names, database)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// none is called where the log has no topics. A source that ends has nothing to read,
// which most likely is not the database that was meant. One that follows waits: topics
// are made with the first events. A position, though, was one of something that is gone.
func (l *topicsLog) none(ctx context.Context, r *reader, start sinks.Start) error {
	if start.After.IsZero() && !l.ends && r.waits {
		return nil
	}
	databases, err := l.databases(ctx, r.admin)
	if err != nil {
		return err
	}
	held := "these brokers have such topics of no database"
	if len(databases) > 0 {
		held = "these brokers have such topics of " + quoted(databases)
	}
	switch {
	case l.ends:
		return &TopicError{Place: l.Name(), Reason: "there are none that this user may see; " + held +
			"; see whether the database's name is right, and whether its firehose has stored anything here"}
	case !start.After.IsZero():
		return &sinks.HistoryError{Log: l.Name(), Wanted: "records behind " + start.After.String(), Held: "there are no topics"}
	}
	r.waits = true
	l.log.WarnContext(ctx, "there are no topics yet; they are waited for", "log", l.Name(), "databases", databases)
	return nil
}

func quoted(names []string) string {
	const most = 10
	var list []string
	for _, name := range names[:min(len(names), most)] {
		list = append(list, strconv.Quote(name))
	}
	text := strings.Join(list, ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
