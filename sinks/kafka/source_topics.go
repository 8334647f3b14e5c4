package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A topicInfo is what a broker says about a topic.
type topicInfo struct {
	id         [16]byte // zero if the broker has no ids
	partitions int32
}

// topics returns the topics of the log that exist.
//
// Each broker is asked, since one may not have heard yet of a topic that
// another has made. The leader of a topic that holds something knows it.
func (l *topicsLog) topics(ctx context.Context, client *kgo.Client) (map[string]topicInfo, error) {
	found := make(map[string]topicInfo)
	note := func(resp *kmsg.MetadataResponse) error {
		for i := range resp.Topics {
			t := &resp.Topics[i]
			if t.Topic == nil || !l.has(*t.Topic) {
				continue
			}
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
				return fmt.Errorf("topic %s: %w", *t.Topic, err)
			}
			info := topicInfo{id: t.TopicID, partitions: int32(len(t.Partitions))}
			if known, ok := found[*t.Topic]; ok && known.id != info.id {
				return fmt.Errorf("topic %s: the brokers do not agree yet which one it is", *t.Topic)
			}
			found[*t.Topic] = info
		}
		return nil
	}
	first, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := note(first); err != nil {
		return nil, err
	}
	if len(first.Brokers) < 2 {
		return found, nil
	}
	for _, b := range first.Brokers {
		answer, err := client.Broker(int(b.NodeID)).RetriableRequest(ctx, kmsg.NewPtrMetadataRequest())
		if err != nil {
			return nil, fmt.Errorf("broker %d: %w", b.NodeID, err)
		}
		if resp, ok := answer.(*kmsg.MetadataResponse); ok {
			if err := note(resp); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}
