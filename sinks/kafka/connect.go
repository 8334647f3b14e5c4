package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// brokers is what a URL says. Its password is in options alone.
type brokers struct {
	seeds   []string
	options []kgo.Opt
}

func (b *brokers) String() string { return strings.Join(b.seeds, ",") }

const defaultPort = "9092"

// parseURL reads kafka://[user:password@]host[:port][,host[:port]...][?tls=true&sasl=plain].
// No error contains the password.
func parseURL(s string) (*brokers, error) {
	rest, ok := strings.CutPrefix(s, "kafka://")
	if !ok {
		return nil, errors.New("the URL of Kafka must begin with kafka://, as in kafka://localhost:9092")
	}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.Contains(query, "@") { // a ? in a password, the rest of which must not be quoted as a parameter
		return nil, errors.New("the URL of Kafka has a user or password with characters that must be percent-encoded")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the URL of Kafka has parameters that cannot be read behind \"?\"")
	}
	var user *url.Userinfo
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		u, err := url.Parse("kafka://" + rest[:i] + "@host")
		if err != nil {
			return nil, errors.New("the URL of Kafka has a user or password with characters that must be percent-encoded")
		}
		user, rest = u.User, rest[i+1:]
	}
	b := new(brokers)
	for host := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), ",") {
		u, err := url.Parse("kafka://" + host)
		if err != nil || u.Hostname() == "" || u.Path != "" {
			return nil, fmt.Errorf("the URL of Kafka has the broker %q: each must be host or host:port, separated by commas", host)
		}
		if u.Port() == "" {
			host = u.Host + ":" + defaultPort
		}
		b.seeds = append(b.seeds, host)
	}
	b.options = append(b.options, kgo.SeedBrokers(b.seeds...))
	return b, b.secure(values, user)
}

// secure adds what the parameters tls and sasl say.
func (b *brokers) secure(values url.Values, user *url.Userinfo) error {
	for name := range values {
		if name != "tls" && name != "sasl" {
			return fmt.Errorf("the URL of Kafka has the unknown parameter %q: there are tls and sasl", name)
		}
	}
	switch v := values.Get("tls"); v {
	case "", "false":
	case "true":
		b.options = append(b.options, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	default:
		return fmt.Errorf("the URL of Kafka has tls=%s: it must be true or false", v)
	}
	how := values.Get("sasl")
	if user == nil {
		if how != "" {
			return fmt.Errorf("the URL of Kafka has sasl=%s, but no user: write kafka://user:password@host", how)
		}
		return nil
	}
	name := user.Username()
	password, _ := user.Password()
	var mechanism sasl.Mechanism
	switch how {
	case "", "plain":
		mechanism = plain.Auth{User: name, Pass: password}.AsMechanism()
	case "scram-sha-256":
		mechanism = scram.Auth{User: name, Pass: password}.AsSha256Mechanism()
	case "scram-sha-512":
		mechanism = scram.Auth{User: name, Pass: password}.AsSha512Mechanism()
	default:
		return fmt.Errorf("the URL of Kafka has sasl=%s: it must be plain, scram-sha-256 or scram-sha-512", how)
	}
	b.options = append(b.options, kgo.SASL(mechanism))
	return nil
}

// clientLog hands what the client logs to slog, its "info" as debug.
type clientLog struct{ to *slog.Logger }

func (l clientLog) Level() kgo.LogLevel {
	switch {
	case l.to.Enabled(context.Background(), slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.to.Enabled(context.Background(), slog.LevelWarn):
		return kgo.LogLevelWarn
	}
	return kgo.LogLevelNone
}

func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	as := slog.LevelDebug
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		as = slog.LevelWarn
	case kgo.LogLevelNone, kgo.LogLevelInfo, kgo.LogLevelDebug:
	}
	l.to.Log(context.Background(), as, "kafka client", append([]any{"message", msg}, keyvals...)...)
}
