package plain

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Message is what a subscriber gets.
type Message struct {
	Subject string
	Header  map[string]string
	Body    []byte
}

func message(subject string, h nats.Header, body []byte) Message {
	m := Message{Subject: subject, Header: make(map[string]string, len(h)), Body: body}
	for name := range h {
		m.Header[name] = h.Get(name)
	}
	return m
}

// Replay returns the first n messages of a subject that a stream has stored.
// It blocks until it has them, or ctx ends.
func Replay(ctx context.Context, url, stream, subject string, n int) ([]Message, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("replay %s: %w", stream, err)
	}
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		return nil, fmt.Errorf("replay %s: %w", stream, err)
	}
	var all []Message
	for len(all) < n {
		m, err := consumer.Next(jetstream.FetchContext(ctx))
		if err != nil {
			return all, fmt.Errorf("replay %s after %d messages: %w", stream, len(all), err)
		}
		all = append(all, message(m.Subject(), m.Headers(), m.Data()))
	}
	return all, nil
}

// Listen subscribes, calls ready, and returns the next n messages of a subject.
// It blocks until it has them, or ctx ends.
func Listen(ctx context.Context, url, subject string, n int, ready func()) ([]Message, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	ready()
	var all []Message
	for len(all) < n {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return all, fmt.Errorf("%s after %d messages: %w", subject, len(all), err)
		}
		all = append(all, message(m.Subject, m.Header, m.Data))
	}
	return all, nil
}
