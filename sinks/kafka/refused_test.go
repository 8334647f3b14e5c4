package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		url  string
		opts *kafka.Options
		want string
	}{
		"another scheme":      {"localhost:9092", nil, "must begin with kafka://"},
		"no host":             {"kafka://", nil, "broker \"\""},
		"a path":              {"kafka://localhost/topic", nil, "host:port"},
		"unknown parameter":   {"kafka://localhost?acks=1", nil, `unknown parameter "acks"`},
		"tls":                 {"kafka://localhost?tls=yes", nil, "tls=yes"},
		"sasl":                {"kafka://u:hidden@localhost?sasl=oauth", nil, "sasl=oauth"},
		"sasl without a user": {"kafka://localhost?sasl=plain", nil, "no user"},
		"bad escape":          {"kafka://u:hid%zz@localhost", nil, "percent-encoded"},
		"password with ?":     {"kafka://u:p?hidden@localhost", nil, "percent-encoded"},
		"password with @ ?":   {"kafka://u:p@x?tls=hidden@localhost", nil, "percent-encoded"},
		"partitions":          {"kafka://localhost", &kafka.Options{Partitions: -1}, "Partitions must be"},
		"compression":         {"kafka://localhost", &kafka.Options{Compression: "rar"}, `"rar" is unknown`},
		"timeout":             {"kafka://localhost", &kafka.Options{TransactionTimeout: 1}, "TransactionTimeout"},
		"limits":              {"kafka://localhost", &kafka.Options{MaxPendingBytes: -1}, "must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kafka.New(tc.url, "shop", tc.opts)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New(%q) = %v, want an error with %q", tc.url, err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "hid") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	if _, err := kafka.New("kafka://u:p%40ss@one,two:9093?tls=true&sasl=scram-sha-512", "shop", nil); err != nil {
		t.Errorf("New with everything = %v", err)
	}
	if _, err := kafka.New("kafka://localhost", "", nil); err == nil || !strings.Contains(err.Error(), "must have a name") {
		t.Errorf("New without a database = %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	t.Run("nobody there", func(t *testing.T) {
		c := &cluster{seeds: []string{"127.0.0.1:1"}}
		_, err := tryOpen(t, c, &kafka.Options{OpenTimeout: 300 * time.Millisecond})
		var unreachable *sinks.UnreachableError
		if !errors.As(err, &unreachable) || unreachable.Servers[0] != "127.0.0.1:1" {
			t.Errorf("Open = %v, want an UnreachableError", err)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		c := run(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "rowcall", "right"))
		c.seeds[0] = "rowcall:wrong-secret@" + c.seeds[0]
		_, err := tryOpen(t, c, &kafka.Options{OpenTimeout: 5 * time.Second})
		var unreachable *sinks.UnreachableError // the broker hangs up
		if !errors.As(err, &unreachable) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("Open = %v, want an UnreachableError without the password", err)
		}
	})
	t.Run("brokers that elect leaders", func(t *testing.T) {
		c := run(t, kfake.SeedTopics(partitions, seatsTopic))
		c.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			asked := req.(*kmsg.ListOffsetsRequest)
			answer := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, topic := range asked.Topics {
				of := kmsg.ListOffsetsResponseTopic{Topic: topic.Topic}
				for _, p := range topic.Partitions {
					of.Partitions = append(of.Partitions, kmsg.ListOffsetsResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.NotLeaderForPartition.Code})
				}
				answer.Topics = append(answer.Topics, of)
			}
			return answer, nil, true
		})
		_, err := tryOpen(t, c, &kafka.Options{OpenTimeout: 2 * time.Second})
		var unreachable *sinks.UnreachableError
		if !errors.As(err, &unreachable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open = %v, want what may pass", err)
		}
	})
	t.Run("brokers that go away meanwhile", func(t *testing.T) {
		c := run(t)
		c.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.DropControl()
			go c.Close()
			return nil, errors.New("it ends"), true
		})
		_, err := tryOpen(t, c, &kafka.Options{OpenTimeout: 30 * time.Second})
		if _, unreachable := errors.AsType[*sinks.UnreachableError](err); !unreachable {
			t.Errorf("Open = %v, want an UnreachableError", err)
		}
	})
	t.Run("other number of partitions", func(t *testing.T) {
		c := run(t, kfake.SeedTopics(3, seatsTopic))
		_, err := tryOpen(t, c, nil)
		wantTopicError(t, err, "it has 3 partitions, not 4")
	})
	t.Run("a stranger's record", func(t *testing.T) {
		c := run(t, kfake.SeedTopics(partitions, seatsTopic))
		produce(t, c, &kgo.Record{Topic: seatsTopic, Value: []byte("hello")})
		_, err := tryOpen(t, c, nil)
		wantTopicError(t, err, "was not stored by a firehose")
	})
	t.Run("no transactions there", func(t *testing.T) {
		c := run(t)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.TransactionalIDAuthorizationFailed, Count: -1})
		_, err := tryOpen(t, c, nil)
		if err == nil || !strings.Contains(err.Error(), "NoTransactions") {
			t.Errorf("Open = %v, want a hint at NoTransactions", err)
		}
	})
	t.Run("topics of others are left alone", func(t *testing.T) {
		c := run(t, kfake.SeedTopics(1, "orders", "cdc.shop.public.seats.copy", "cdc.shopping.public.seats"))
		store(t, open(t, c, nil), sinktest.History(random(t, 1), 150))
	})
}

func produce(t testing.TB, c *cluster, r *kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func wantTopicError(t *testing.T, err error, want string) {
	t.Helper()
	var refused *sinks.PlaceError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want a PlaceError with %q", err, want)
	}
}
