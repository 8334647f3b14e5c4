package rabbitmq_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// What does not pass by itself ends the subscription, and is not tried for ever.
func TestPublisherSaysWhatDoesNotPass(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		harm func(t *testing.T, tp *topic, user string)
		want string
	}{
		"the exchange is deleted": {want: "it is gone: somebody has deleted it", harm: func(t *testing.T, tp *topic, _ string) {
			if err := tp.channel(t).ExchangeDelete(tp.exchange, false, false); err != nil {
				t.Fatal(err)
			}
		}},
		"the permission is revoked": {want: "may not publish to it any more", harm: func(t *testing.T, tp *topic, user string) {
			if out, err := tp.server.Ctl(t.Context(), "set_permissions", user, ".*", "^$", ".*"); err != nil {
				t.Fatal(err, out)
			}
			// A channel remembers for a while what it was allowed.
			if out, err := tp.server.Ctl(t.Context(), "close_all_user_connections", user, "permissions"); err != nil {
				t.Fatal(err, out)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tp := newTopic(t, nil)
			user := tp.exchange
			ctl := func(args ...string) {
				if out, err := tp.server.Ctl(context.WithoutCancel(t.Context()), args...); err != nil {
					t.Error(err, out)
				}
			}
			ctl("add_user", user, "secret")
			defer ctl("delete_user", user)
			ctl("set_permissions", user, ".*", ".*", ".*")
			u, err := url.Parse(tp.server.URL())
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword(user, "secret")
			c, err := rabbitmq.NewConnector(u.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p, err := rabbitmq.NewPublisher(c, &rabbitmq.PublisherOptions{Exchange: tp.exchange})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			before := sinktest.Transaction(10, 5)
			if err := errors.Join(sinktest.Feed(ctx, p, []*listeners.Batch{before}), p.Flush(ctx)); err != nil {
				t.Fatal(err)
			}
			tc.harm(t, tp, user)
			err = sinktest.Feed(ctx, p, []*listeners.Batch{sinktest.Transaction(20, 5)})
			if err == nil {
				err = p.Flush(ctx)
			}
			place, ok := errors.AsType[*sinks.PlaceError](err)
			if !ok || place.Place != "exchange "+tp.exchange || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Flush = %v, want a PlaceError of the exchange with %q", err, tc.want)
			}
			if got := p.Stored(); got != before.Position {
				t.Errorf("Stored = %s, want %s of what was confirmed", got, before.Position)
			}
		})
	}
}
