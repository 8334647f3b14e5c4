package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// A groupSession is one client's membership.
type groupSession struct {
	groups *Groups
	member *sinks.GroupMember
	client *kgo.Client
	admin  *kadm.Client
	ctx    context.Context //nolint:containedctx // ends with the session
	end    context.CancelCauseFunc
	pulse  *pulse
	ready  chan struct{} // closed when client and admin are set: a client joins while it is made

	wg     sync.WaitGroup
	mu     sync.Mutex
	claims map[string]map[int32]*groupClaim
	seeks  []*groupClaim      // that want to be read from somewhere else
	wake   context.CancelFunc // of the poll under way; nil: none
	failed error              // the first that Own returned
}

// session is a member until ctx ends or something fails.
func (g *Groups) session(ctx context.Context, m *sinks.GroupMember) error {
	// With another client, since a member has joined as soon as its client is made.
	if err := g.ensureStart(ctx, m); err != nil {
		return err
	}
	s := &groupSession{groups: g, member: m, ready: make(chan struct{}), claims: make(map[string]map[int32]*groupClaim)}
	s.ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	s.pulse = newPulse(m.Lease, s.giveUp)
	defer s.pulse.stop()
	var err error
	s.client, err = kgo.NewClient(append(g.options(m),
		kgo.ConsumerGroup(m.Group), kgo.ConsumeRegex(), kgo.ConsumeTopics(g.topics()),
		kgo.MetadataMaxAge(g.opts.NewTopics), kgo.MetadataMinAge(min(250*time.Millisecond, g.opts.NewTopics)),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(m.Lease), kgo.HeartbeatInterval(min(m.Lease/4, time.Second)), kgo.RebalanceTimeout(2*m.DrainTimeout+2*m.Lease),
		kgo.ConsumeStartOffset(kgo.NoResetOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()), kgo.KeepControlRecords(),
		kgo.AdjustFetchOffsetsFn(s.assigned), kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
		kgo.WithHooks(s.pulse),
	)...)
	if err != nil {
		return err
	}
	s.admin = kadm.NewClient(s.client)
	close(s.ready)
	var watch sync.WaitGroup
	watch.Go(func() { s.pulse.watchJoins(s.ctx, m.Group, s.client, s.admin) })
	defer watch.Wait()
	err = s.poll()
	s.end(err)
	s.leave()
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	if cause := context.Cause(s.ctx); ctx.Err() == nil && cause != nil {
		return cause
	}
	return err
}

// leave gives up everything in order, if the brokers can be reached.
func (s *groupSession) leave() {
	s.mu.Lock()
	for _, partitions := range s.claims {
		for _, c := range partitions {
			c.revoke()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.member.Lease)
	defer cancel()
	if err := s.client.LeaveGroupContext(ctx); err != nil {
		s.member.Logger.DebugContext(ctx, "the brokers will find out that the member has left", "group", s.member.Group, "error", err)
	}
	s.client.CloseAllowingRebalance()
}

// poll hands on what is fetched.
func (s *groupSession) poll() error {
	for {
		ctx, cancel := context.WithCancel(s.ctx)
		s.mu.Lock()
		s.wake = cancel
		if len(s.seeks) > 0 {
			cancel()
		}
		s.mu.Unlock()
		fetches := s.client.PollFetches(ctx)
		cancel()
		if s.ctx.Err() != nil {
			s.client.AllowRebalance()
			return context.Cause(s.ctx)
		}
		err := s.failure(fetches)
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if c := s.claim(p.Topic, p.Partition); c != nil {
				c.push(&p)
			}
		})
		s.seek()
		s.client.AllowRebalance()
		if err != nil {
			return err
		}
	}
}

func (s *groupSession) wantSeek(c *groupClaim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeks = append(s.seeks, c)
	if s.wake != nil {
		s.wake()
	}
}

// seek is called between two polls, and no partition is given away meanwhile.
func (s *groupSession) seek() {
	s.mu.Lock()
	seeks := s.seeks
	s.seeks = nil
	s.mu.Unlock()
	for _, c := range seeks {
		if s.claim(c.topic, c.partition) == c {
			c.seekNow()
		}
	}
}

// failure returns an error for what no waiting puts right.
func (s *groupSession) failure(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		var session *kgo.ErrGroupSession
		var truncated *kgo.ErrDataLoss // the client goes on before what was lost
		switch {
		case errors.Is(e.Err, context.Canceled):
			continue // a claim seeks
		case errors.Is(e.Err, kerr.OffsetOutOfRange), errors.As(e.Err, &truncated):
			if c := s.claim(e.Topic, e.Partition); c != nil {
				c.broken()
			}
			continue
		case errors.Is(e.Err, kgo.ErrClientClosed):
			return e.Err
		case errors.Is(e.Err, kerr.TopicAuthorizationFailed), errors.Is(e.Err, kerr.GroupAuthorizationFailed), errors.Is(e.Err, kerr.ClusterAuthorizationFailed):
			return fmt.Errorf("%w; allow this user to read and describe the group and its topics %s", e.Err, s.groups.topics())
		case errors.Is(e.Err, kerr.InvalidSessionTimeout):
			return fmt.Errorf("%w: the brokers do not allow a lease of %s; see group.min.session.timeout.ms", e.Err, s.member.Lease)
		case errors.Is(e.Err, kerr.InconsistentGroupProtocol), errors.Is(e.Err, kerr.InvalidGroupID):
			return fmt.Errorf("%w: another kind of consumer has a group of this name; choose another name", e.Err)
		case errors.As(e.Err, &session):
		}
		s.member.Logger.DebugContext(s.ctx, "reading interrupted", "group", s.member.Group, "topic", e.Topic, "partition", e.Partition, "error", e.Err)
	}
	return nil
}

func (s *groupSession) claim(topic string, partition int32) *groupClaim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims[topic][partition]
}

// assigned begins with partitions, once their checkpoints are known.
func (s *groupSession) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	topics := make([]string, 0, len(offsets))
	for topic := range offsets {
		topics = append(topics, topic)
	}
	if len(topics) == 0 {
		return offsets, nil
	}
	<-s.ready
	starts, err := s.admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, err
	}
	commits, err := s.admin.FetchOffsetsForTopics(ctx, s.member.Group, topics...)
	if err == nil {
		err = commits.Error()
	}
	if err != nil {
		return nil, err
	}
	for topic, partitions := range offsets {
		for partition := range partitions {
			start, _ := starts.Lookup(topic, partition)
			mark := sinks.GroupMark{Next: uint64(max(start.Offset, 0)), Fresh: start.Offset <= 0}
			if commit, ok := commits.Lookup(topic, partition); ok && commit.At >= 0 {
				if mark, err = parseMark(commit.At, commit.Metadata); err != nil {
					return nil, fmt.Errorf("checkpoint of %s, partition %d: %w", topic, partition, err)
				}
			}
			partitions[partition] = kgo.NoResetOffset().At(int64(mark.Next))
			s.begin(topic, partition, mark)
		}
	}
	return offsets, nil
}

func (s *groupSession) begin(topic string, partition int32, mark sinks.GroupMark) {
	c := s.newClaim(topic, partition, mark)
	// The client remembers what was paused when it was revoked.
	s.client.ResumeFetchPartitions(c.only())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if s.claims[topic] == nil {
		s.claims[topic] = make(map[int32]*groupClaim)
	}
	s.claims[topic][partition] = c
	s.wg.Go(func() {
		defer close(c.ended)
		if err := s.member.Own(c.held, c); err != nil {
			s.fail(err)
			s.outlast(c, err)
		}
		c.lose(nil)
	})
}

func (s *groupSession) fail(err error) {
	s.mu.Lock()
	if s.failed == nil {
		s.failed = err
	}
	s.mu.Unlock()
	s.end(err)
}

// outlast keeps a partition for a lease if a listener is still at it: the brokers
// would give it to another member at once.
func (s *groupSession) outlast(c *groupClaim, err error) {
	if _, stuck := errors.AsType[*sinks.GroupStuckError](err); !stuck {
		return
	}
	lease := time.NewTimer(s.member.Lease)
	defer lease.Stop()
	select {
	case <-lease.C:
	case <-c.held.Done():
	}
}

// revoked waits until partitions are given up, which the brokers wait for.
func (s *groupSession) revoked(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	s.forget(partitions, (*groupClaim).revokeNow)
}

// lost ends partitions that belong to others already.
func (s *groupSession) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	s.forget(partitions, func(c *groupClaim) { c.lost("the brokers have given this member up") })
}

func (s *groupSession) forget(partitions map[string][]int32, how func(*groupClaim)) {
	var claims []*groupClaim
	for topic, numbers := range partitions {
		for _, n := range numbers {
			if c := s.claim(topic, n); c != nil {
				how(c)
				claims = append(claims, c)
			}
		}
	}
	for _, c := range claims {
		<-c.ended
		s.mu.Lock()
		delete(s.claims[c.topic], c.partition)
		s.mu.Unlock()
	}
}

// giveUp ends the session when the brokers may have given the member up, so
// that nothing is handled by two.
func (s *groupSession) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, partitions := range s.claims {
		for _, c := range partitions {
			c.lost(fmt.Sprintf("its lease of %s is over, and the brokers could not be reached to renew it", s.member.Lease))
		}
	}
	s.end(errSilent)
}
