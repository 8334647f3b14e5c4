package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

const (
	refScheme = "kafka:"
	// pieceOverhead is what a piece takes besides its part of the body.
	pieceOverhead = 1 << 10
	headerPiece   = "rowcall-piece"
)

// ParkedTopic returns the name of the topic that holds the bodies that are too
// large for the topics of a database. It has one partition. Each body is there in
// pieces, one behind the other, whose key is the id of the event; a body may be there
// twice, and the record of the event says which one counts.
func ParkedTopic(database string) string { return sinks.DatabaseAddress(database) + "._parked" }

// Park stores the body of a message in pieces. While brokers are away, the client
// tries again until ctx ends.
func (w *writer) Park(ctx context.Context, m *sinks.FirehoseMessage) (string, error) {
	name := ParkedTopic(w.database)
	fail := func(err error) (string, error) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("park the body of %s in topic %s: %w", m.Frame.ID, name, explain(name, err))
	}
	if err := w.openParking(ctx, name); err != nil {
		return fail(err)
	}
	most := w.opts.MaxMessageBytes - pieceOverhead - len(m.Frame.ID)
	if most < 1 {
		return fail(sinks.Permanent(errors.New("MaxMessageBytes has no room for a piece")))
	}
	var first, n int64
	for body := m.Frame.Body; len(body) > 0; n++ {
		piece := body[:min(most, len(body))]
		body = body[len(piece):]
		r := &kgo.Record{Topic: name, Key: []byte(m.Frame.ID), Value: piece, Headers: []kgo.RecordHeader{
			{Key: headerPiece, Value: strconv.AppendInt(nil, n, 10)},
		}}
		// One after the other: the next one is right behind it.
		if err := w.parking.ProduceSync(ctx, r).FirstErr(); err != nil {
			return fail(err)
		}
		if n == 0 {
			first = r.Offset
		}
		if r.Offset != first+n { // a piece of a predecessor's came between
			body, n = m.Frame.Body, -1
		}
	}
	return fmt.Sprintf("%s%s?offset=%d&pieces=%d", refScheme, name, first, n), nil
}

// openParking makes the topic and a client for it, unless they are there: the
// firehose's own client stores in transactions only.
func (w *writer) openParking(ctx context.Context, name string) error {
	if w.parking != nil {
		return nil
	}
	configs := map[string]*string{"cleanup.policy": new("delete")}
	if r := w.opts.Retention; r != 0 {
		configs["retention.ms"] = new(strconv.FormatInt(max(r.Milliseconds(), -1), 10))
	}
	if _, err := w.createTopic(ctx, name, 1, configs, func() (id kadm.TopicID, err error) { return id, nil }); err != nil {
		return err
	}
	client, err := kgo.NewClient(append(w.base(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.UnknownTopicRetries(10),
		kgo.MetadataMinAge(250*time.Millisecond),
		kgo.ProducerBatchMaxBytes(int32(w.opts.MaxMessageBytes+batchOverhead)),
		kgo.ProducerBatchCompression(compressions[w.opts.Compression]),
		kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0))...)
	if err != nil {
		return err
	}
	w.parking = client
	return nil
}

// Unpark fetches the body that a record's header ce_dataref speaks of, from the
// brokers of a URL as [New] takes it. It reads until ctx ends.
func Unpark(ctx context.Context, brokersURL, ref string) ([]byte, error) {
	b, err := parseURL(brokersURL)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return unpark(ctx, b.options, ref)
}

// Unpark implements [sinks.Unparker].
func (l *topicsLog) Unpark(ctx context.Context, ref string) ([]byte, error) {
	return unparkPatiently(ctx, slices.Concat(l.brokers.options, l.client), ref)
}

// unparkPatiently tries again while brokers are away.
func unparkPatiently(ctx context.Context, options []kgo.Opt, ref string) ([]byte, error) {
	body, err := backoff.RetryWithData(func() ([]byte, error) {
		body, err := unpark(ctx, options, ref)
		if _, gone := errors.AsType[*sinks.PlaceError](err); gone {
			return nil, backoff.Permanent(err)
		}
		return body, err
	}, backoff.WithContext(backoff.NewExponentialBackOff(backoff.WithMaxElapsedTime(0)), ctx))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return body, err
}

func unpark(ctx context.Context, options []kgo.Opt, ref string) ([]byte, error) {
	topic, offset, pieces, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(slices.Clip(options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(offset)}}))...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	starts, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, explain(topic, err)
	}
	if start, _ := starts.Lookup(topic, 0); start.Offset > offset {
		return nil, &sinks.PlaceError{Place: place(topic), Reason: fmt.Sprintf("the body at offset %d is gone: its retention has removed it; raise retention.ms", offset)}
	}
	var body []byte
	for n := int64(0); n < pieces; {
		fetches := client.PollRecords(ctx, int(pieces-n))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("topic %s: body at offset %d: %w", topic, offset, context.Cause(ctx))
		}
		for _, e := range fetches.Errors() {
			return nil, explain(e.Topic, e.Err)
		}
		for r := range fetches.RecordsAll() {
			if r.Offset != offset+n {
				return nil, &sinks.PlaceError{Place: place(topic), Reason: fmt.Sprintf("the record behind offset %d is %d, so the body that was parked there is gone", offset+n-1, r.Offset)}
			}
			body = append(body, r.Value...)
			n++
		}
	}
	return body, nil
}

func parseRef(ref string) (topic string, offset, pieces int64, err error) {
	rest, ok := strings.CutPrefix(ref, refScheme)
	topic, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err == nil {
		offset, err = strconv.ParseInt(values.Get("offset"), 10, 64)
	}
	if err == nil {
		pieces, err = strconv.ParseInt(values.Get("pieces"), 10, 64)
	}
	if !ok || err != nil || topic == "" || offset < 0 || pieces < 1 {
		return "", 0, 0, &sinks.PlaceError{Place: fmt.Sprintf("parked body %q", ref), Reason: "that says no place: want " + refScheme + "<topic>?offset=<n>&pieces=<n>"}
	}
	return topic, offset, pieces, nil
}
