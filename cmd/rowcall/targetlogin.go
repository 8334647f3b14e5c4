package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// A targetLogin says who goes to a place, and how its servers are known, beside
// what the URL of the place says.
type targetLogin struct {
	user                   string
	password, passwordFile string
	sasl                   string // of Kafka, as the URL has it
	encrypt                bool   // of Kafka: TLS, with or without files
	tls                    tlsFiles
}

// url puts user, password and how to log in into the URL of a place. Errors
// hold no secret.
func (l *targetLogin) url(target string) (string, error) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok {
		return target, nil
	}
	_, _, in := strings.Cut(rest, "@")
	password := l.password
	switch {
	case l.user == "" && (l.password != "" || l.passwordFile != ""):
		return "", errors.New("there is a password, but no user")
	case l.user != "" && in:
		return "", errors.New("there is a user in the URL, too")
	case l.passwordFile != "":
		var err error
		if password, err = readSecret(l.passwordFile); err != nil {
			return "", fmt.Errorf("password-file: %w", err)
		}
	}
	if l.user != "" {
		rest = url.UserPassword(l.user, password).String() + "@" + rest
	}
	if targetKind(target) == kindKafka {
		_, query, _ := strings.Cut(target, "?")
		said, err := url.ParseQuery(query)
		if err != nil {
			return target, nil //nolint:nilerr // kafka.New says it better
		}
		if l.sasl != "" {
			said.Set("sasl", l.sasl)
		}
		if l.encrypted() {
			said.Set("tls", "true")
		}
		rest, _, _ = strings.Cut(rest, "?")
		if query = said.Encode(); query != "" {
			rest += "?" + query
		}
	}
	return scheme + "://" + rest, nil
}

// encrypted reports whether Kafka is to be talked to by TLS, as far as these say.
func (l *targetLogin) encrypted() bool { return l.encrypt || l.tls.given() }

// client returns the options of a Kafka client that the files ask for.
func (l *targetLogin) client() ([]kgo.Opt, error) {
	c, err := l.tls.config()
	if c == nil {
		return nil, err
	}
	return []kgo.Opt{kgo.DialTLSConfig(c)}, nil
}

// connector returns what connects to RabbitMQ. It starts nothing.
func (l *targetLogin) connector(target string) (*rabbitmq.Connector, error) {
	serverURL, err := l.url(target)
	if err != nil {
		return nil, err
	}
	c, err := l.tls.config()
	if err != nil {
		return nil, err
	}
	return rabbitmq.NewConnector(serverURL, &rabbitmq.ConnectOptions{TLS: c})
}

// withoutFiles is the login with what can be known of it without its files.
func (l *targetLogin) withoutFiles() *targetLogin {
	c := *l
	if c.passwordFile != "" && c.password == "" {
		c.password = "-"
	}
	c.passwordFile = ""
	c.encrypt, c.tls = c.encrypted(), tlsFiles{}
	return &c
}

// wrongTogether returns what is wrong with keys that have been read: those that
// rule each other out, and files.
func (o *targetOptions) wrongTogether() []error {
	var faults []error
	fault := func(key string, err error) {
		if err != nil {
			faults = append(faults, o.keyAt[key].errorf("%s: %w", key, err))
		}
	}
	l := &o.login
	switch {
	case l.passwordFile != "" && l.password != "":
		fault("password-file", errors.New("there is a password, too: set one of them"))
	case l.passwordFile != "":
		_, err := readSecret(l.passwordFile)
		fault("password-file", err)
	}
	if !o.latest && o.bucket != "" {
		fault("bucket", errors.New("it is for the latest state: set latest: true, or leave it out"))
	}
	_, err := l.tls.config()
	fault(l.tls.about(), err)
	return faults
}

// loginSettings are the settings of a place about who goes there.
func loginSettings() []targetSetting {
	brokers := []string{kindKafka, kindAMQP}
	file := func(key, help string, field func(*targetLogin) *string) targetSetting {
		return targetSetting{key: key, of: brokers, example: key + ".pem", help: help, set: func(o *targetOptions, text string) error {
			*field(&o.login) = text
			return nil
		}}
	}
	all := []targetSetting{
		{
			key: "user", of: brokers, example: "rowcall", help: "who goes there, unless the URL says it",
			set: func(o *targetOptions, text string) error { o.login.user = text; return nil },
		},
		{
			key: "password", of: brokers, example: "${BROKER_PASSWORD}", help: "the user's password, as it is",
			set: func(o *targetOptions, text string) error { o.login.password = text; return nil },
		},
		{
			key: "password-file", of: brokers, example: "/run/secrets/broker", help: "a file with the user's password, instead",
			set: func(o *targetOptions, text string) error { o.login.passwordFile = text; return nil },
		},
		{
			key: "sasl", of: []string{kindKafka}, kind: valueChoice, example: "scram-sha-512", help: "how the user logs in: plain, scram-sha-256 or scram-sha-512 (default plain)",
			set: func(o *targetOptions, text string) error {
				o.login.sasl = text
				return newChoice("", "plain", "scram-sha-256", "scram-sha-512").Set(text)
			},
		},
		{
			key: "tls", of: []string{kindKafka}, kind: valueBool, example: "true", help: "talk TLS to the brokers; ca, cert, key and server-name say so, too (default false)",
			set: func(o *targetOptions, text string) (err error) {
				o.login.encrypt, err = trueOrFalse(text)
				return err
			},
		},
		file("ca", "a file with the certificates (PEM) of the authorities that sign the servers' (default: those of the system)", func(l *targetLogin) *string { return &l.tls.ca }),
		file("cert", "a file with a certificate (PEM) to show to the servers; it is read with each connection", func(l *targetLogin) *string { return &l.tls.cert }),
		file("key", "a file with its key (PEM)", func(l *targetLogin) *string { return &l.tls.key }),
		{
			key: "server-name", of: brokers, example: "broker.internal", help: "the name in the servers' certificates (default: the host)",
			set: func(o *targetOptions, text string) error { o.login.tls.serverName = text; return nil },
		},
	}
	return all
}
