package kafka

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// ensureStart commits where a new group begins, so that all its members begin
// there. Topics that are new later are read from their beginning. It tries for as long as
// ctx lives.
func (g *Groups) ensureStart(ctx context.Context, m *sinks.GroupMember) error {
	if m.Start.Oldest && m.Start.Time.IsZero() && m.Start.After.IsZero() {
		return nil
	}
	client, err := kgo.NewClient(g.options(m)...)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	return backoff.RetryNotify(func() error {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err := g.commitStart(limited, admin, m)
		if errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) {
			return backoff.Permanent(fmt.Errorf("%w; allow this user to read and describe the group and its topics %s", err, g.topics()))
		}
		return err
	}, backoff.WithContext(backoff.NewExponentialBackOff(backoff.WithInitialInterval(20*time.Millisecond), backoff.WithMaxInterval(2*time.Second), backoff.WithMaxElapsedTime(0)), ctx),
		func(err error, _ time.Duration) {
			m.Logger.DebugContext(ctx, "where the group begins cannot be stored yet", "group", m.Group, "error", err)
		})
}

func (g *Groups) commitStart(ctx context.Context, admin *kadm.Client, m *sinks.GroupMember) error {
	all, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	ours := regexp.MustCompile(g.topics())
	var topics []string
	for name := range all {
		if ours.MatchString(name) {
			topics = append(topics, name)
		}
	}
	if len(topics) == 0 {
		return nil
	}
	commits, err := admin.FetchOffsets(ctx, m.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	for topic, partitions := range commits {
		for _, c := range partitions {
			if c.Err == nil && c.At >= 0 && ours.MatchString(topic) {
				return nil // it has begun
			}
		}
	}
	var at kadm.ListedOffsets
	switch s := m.Start; {
	case !s.After.IsZero():
		at, err = admin.ListStartOffsets(ctx, topics...)
	case !s.Time.IsZero():
		at, err = admin.ListOffsetsAfterMilli(ctx, s.Time.UnixMilli(), topics...)
	default:
		at, err = admin.ListCommittedOffsets(ctx, topics...)
	}
	if err == nil {
		err = at.Error()
	}
	if err != nil {
		return err
	}
	begin := make(kadm.Offsets)
	at.Each(func(o kadm.ListedOffset) {
		mark := sinks.GroupMark{Next: uint64(max(o.Offset, 0)), Position: m.Start.After, Fresh: o.Offset <= 0}
		begin.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: int64(mark.Next), LeaderEpoch: -1, Metadata: markText(mark)})
	})
	done, err := admin.CommitOffsets(ctx, m.Group, begin)
	if err == nil {
		err = done.Error()
	}
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration) {
		return nil // there is a member already, which has done this
	}
	return err
}
