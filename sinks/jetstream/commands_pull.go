package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullHeartbeat is how often, while a pull request is open, the server says
	// that it is there.
	pullHeartbeat = 2 * time.Second
	// pullExpires is how long a pull request stays open when nothing comes.
	pullExpires = 30 * time.Second
	// pullQuiet is how long nothing has to come before a request is ended.
	pullQuiet = 50 * time.Millisecond
)

// A pull asks a consumer for messages, one request at a time. The client
// library's own requests drop what is on its way when they are ended, and it
// would then lie there until its lease is over. Used by one goroutine.
type pull struct {
	nc      *nats.Conn
	subject string
	room    int // for what may come at most

	sub   *nats.Subscription // nil: to be made anew
	inbox string             // its prefix
	// Messages has what the requests bring, and what the server says of them.
	messages chan *nats.Msg
	request  int // number of the last one
	left     int // messages that the open request may still bring; 0: none is open
	silent   *time.Timer
}

func newPull(nc *nats.Conn, api, stream, consumer string, room int) *pull {
	p := &pull{nc: nc, subject: api + "CONSUMER.MSG.NEXT." + stream + "." + consumer, room: room, silent: time.NewTimer(time.Hour)}
	p.silent.Stop()
	return p
}

// open sends a request for n messages unless one is open.
func (p *pull) open(n int) error {
	if p.left > 0 {
		return nil
	}
	if p.sub == nil {
		p.inbox = p.nc.NewInbox()
		// What does not fit is lost: twice what may come, and signs of life.
		p.messages = make(chan *nats.Msg, 2*p.room+100)
		sub, err := p.nc.ChanSubscribe(p.inbox+".*", p.messages)
		if err != nil {
			return err
		}
		p.sub = sub
	}
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{n, pullExpires, pullHeartbeat})
	if err != nil {
		return err
	}
	p.request++
	if err := p.nc.PublishRequest(p.subject, p.reply(), body); err != nil {
		return err
	}
	p.left = n
	p.silent.Reset(2 * pullHeartbeat)
	return nil
}

func (p *pull) reply() string { return p.inbox + "." + strconv.Itoa(p.request) }

// errPullLost says that the request has to be made anew, after a look at the
// consumer.
var errPullLost = errors.New("the request for commands is lost")

// accept reports whether m is a message of the stream. Otherwise the server has
// said something, which is an error if the request is over for a reason.
func (p *pull) accept(m *nats.Msg) (bool, error) {
	status := m.Header.Get("Status")
	if ofStream(m) {
		p.left--
		p.heard()
		return true, nil
	}
	if m.Subject != p.reply() {
		return false, nil // of a request that is over
	}
	switch status {
	case "100":
		p.heard()
		return false, nil
	case "404", "408": // nothing came
		p.left = 0
		p.heard()
		return false, nil
	}
	p.left = 0
	p.heard()
	return false, fmt.Errorf("%w: %s %s", errPullLost, status, m.Header.Get("Description"))
}

// ofStream reports whether a message is to be acknowledged. What the server says for
// itself is not; a header Status may be a command's own.
func ofStream(m *nats.Msg) bool { return m.Reply != "" }

func (p *pull) heard() {
	if p.left > 0 {
		p.silent.Reset(2 * pullHeartbeat)
	} else {
		p.silent.Stop()
	}
}

// finish is end for a request that the server may still answer. A message that
// the server finds nobody for counts as delivered, so it is left the time it
// needs for those that there are, as more says, but at most as long as ctx.
func (p *pull) finish(ctx context.Context, more func(context.Context) bool) []*nats.Msg {
	var all []*nats.Msg
	quiet := time.NewTimer(pullQuiet)
	defer quiet.Stop()
	for p.left > 0 {
		select {
		case m := <-p.messages:
			if ok, _ := p.accept(m); ok {
				all = append(all, m)
				quiet.Reset(pullQuiet)
			}
			continue
		case <-quiet.C:
			if more(ctx) {
				quiet.Reset(pullQuiet)
				continue
			}
		case <-ctx.Done():
		}
		break
	}
	return append(all, p.end(ctx)...)
}

// end ends the request, and returns what it has brought. It waits, at most as
// long as ctx, until nothing is on its way any more.
func (p *pull) end(ctx context.Context) []*nats.Msg {
	if p.sub == nil {
		return nil
	}
	sub := p.sub
	p.sub, p.left = nil, 0
	p.silent.Stop()
	if sub.Drain() == nil {
		_ = p.nc.FlushWithContext(ctx) // an error: the connection is gone, and what was on it
	} else {
		_ = sub.Unsubscribe()
	}
	var all []*nats.Msg
	for {
		select {
		case m := <-p.messages:
			if ofStream(m) {
				all = append(all, m)
			}
		default:
			return all
		}
	}
}
