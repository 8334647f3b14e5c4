package kafka

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lateTimers is the part of a lease by which a member stops before the brokers
// give it up, since a timer may run late on a busy machine.
const lateTimers = 5

// A pulse is the signs of life that the brokers have answered, and runs giveUp when
// there was none for so long that they may have given the member up. The brokers
// count from when one has arrived, the pulse from before it was sent.
//
// A member that waits in JoinGroup, because another one is slow to give up
// partitions, sends no signs of life. The brokers do not give it up meanwhile,
// but begin to count when the group has been put together, which the member does not hear
// of if its connection hangs. So it asks for the group's state: as long as that is
// "PreparingRebalance" and the member belongs to it, they have not begun.
type pulse struct {
	lease time.Duration
	timer *time.Timer

	mu      sync.Mutex
	joining bool      // a JoinGroup was sent and is not answered
	last    time.Time // the last sign of life was sent then
}

var (
	_ kgo.HookBrokerE2E   = (*pulse)(nil)
	_ kgo.HookBrokerWrite = (*pulse)(nil)
)

func newPulse(lease time.Duration, giveUp func()) *pulse {
	p := &pulse{lease: lease, timer: time.AfterFunc(time.Hour, giveUp)}
	p.timer.Stop() // until the first sign of life
	return p
}

func (p *pulse) stop() { p.timer.Stop() }

// alive notes a sign of life that was sent at a time.
func (p *pulse) alive(sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent.After(p.last) {
		p.last = sent
	}
	p.timer.Reset(p.lease - p.lease/lateTimers - time.Since(p.last))
}

// OnBrokerWrite implements [kgo.HookBrokerWrite].
func (p *pulse) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if kmsg.Key(key) == kmsg.JoinGroup && err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.joining = true
	}
}

// OnBrokerE2E implements [kgo.HookBrokerE2E].
func (p *pulse) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	switch kmsg.Key(key) {
	case kmsg.JoinGroup:
		p.mu.Lock()
		p.joining = false
		p.mu.Unlock()
	case kmsg.SyncGroup, kmsg.Heartbeat:
	default:
		return
	}
	if e2e.Err() == nil {
		p.alive(time.Now().Add(-e2e.DurationE2E() - e2e.WriteWait))
	}
}

// watchJoins asks for the group's state while the member waits in JoinGroup.
func (p *pulse) watchJoins(ctx context.Context, group string, client *kgo.Client, admin *kadm.Client) {
	tick := time.NewTicker(p.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		joining := p.joining
		p.mu.Unlock()
		if !joining {
			continue
		}
		asked := time.Now()
		limited, cancel := context.WithTimeout(ctx, p.lease/3)
		if waits(limited, group, client, admin) {
			p.alive(asked)
		}
		cancel()
	}
}

// waits reports whether the brokers wait for others of the member's group.
func waits(ctx context.Context, group string, client *kgo.Client, admin *kadm.Client) bool {
	id, _ := client.GroupMetadata()
	described, err := admin.DescribeGroups(ctx, group)
	if err != nil {
		return false
	}
	g := described[group]
	return g.Err == nil && g.State == "PreparingRebalance" &&
		slices.ContainsFunc(g.Members, func(m kadm.DescribedGroupMember) bool { return m.MemberID == id })
}
