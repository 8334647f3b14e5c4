package kafka

import (
	"context"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// Ping asks the brokers of a URL for a sign of life, and waits for it until ctx
// ends: then the error is an [UnreachableError]. It is for who would rather not
// wait as long as a source does, which takes brokers that are away for brokers
// that come back.
func Ping(ctx context.Context, brokersURL string, client ...kgo.Opt) error {
	b, err := parseURL(brokersURL)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	opts := append([]kgo.Opt{kgo.ClientID("rowcall")}, b.options...)
	return b.ping(ctx, append(opts, client...))
}

// ping finds out whether the brokers can be talked to: one that hangs up does not
// like how it is talked to.
func (b *brokers) ping(ctx context.Context, opts []kgo.Opt) error {
	client, err := kgo.NewClient(append(opts, kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0))...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return &sinks.UnreachableError{
			Broker: "Kafka", Servers: b.seeds, Err: err,
			Remedy: "check the address, that a broker runs there, and that the security settings (tls, sasl) are those of its listener",
		}
	}
	return nil
}
