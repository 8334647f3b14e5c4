package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// latestMarkers is no pair of escaped names.
	latestMarkers = "-control.markers"
	// markerReset, markerLive and markerTruncate are keys of markers, or begin them.
	markerReset    = "reset"
	markerLive     = "live"
	markerTruncate = "truncate/"
	// headerKey is in a tombstone: the columns of the row's key, as in a body.
	headerKey = "rowcall-key"
)

// LatestMarkers returns the name of the topic that tells a source what the
// tombstones of a table's rows do not say: the last reset, the last live marker, and the last
// truncate of each table, as messages of a firehose. Only its first partition is used.
func LatestMarkers(database string) string { return LatestName(database) + "." + latestMarkers }

// isMarker reports whether a message is a marker here: a truncate is, too.
func isMarker(m *sinks.FirehoseMessage) bool {
	return m.Marker() || graveOf(m) == nil && m.Batch.Events[m.Index].Op == listeners.Truncate
}

// markers returns where markers are stored, always behind the tombstones of which
// they tell.
func (l *latest) markers(ctx context.Context) ([]*sinks.FirehoseLane, error) {
	t, err := l.ensureTopic(ctx, LatestMarkers(l.database))
	if err != nil {
		return nil, err
	}
	l.lane[0] = t.lanes[0]
	l.lane[0].Begun = true // the first reset tells of what the topics of tables hold
	return l.lane[:], nil
}

// markerKey returns what only the last marker is kept of.
func (l *latest) markerKey(m *sinks.FirehoseMessage) string {
	switch m.Batch.Kind {
	case listeners.Reset:
		if m.Batch.Collections == nil {
			return markerReset
		}
		var names []string
		for _, c := range m.Batch.Collections {
			names = append(names, sinks.EscapeToken(c))
		}
		return markerReset + "/" + strings.Join(names, "/")
	case listeners.Live:
		return markerLive
	case listeners.Changes, listeners.Snapshot:
	}
	return markerTruncate + strings.TrimPrefix(l.topicName(m.Batch.Events[m.Index].Schema), l.prefix)
}

// keyOf returns the key of a body as a header.
func keyOf(text []byte) (kgo.RecordHeader, error) {
	var body struct {
		Key json.RawMessage `json:"key"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return kgo.RecordHeader{}, fmt.Errorf("kafka: key of a body: %w", err)
	}
	return kgo.RecordHeader{Key: headerKey, Value: body.Key}, nil
}

// headerOf returns the value of a record's header, nil if it has none.
func headerOf(r *kgo.Record, name string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			return r.Headers[i].Value
		}
	}
	return nil
}
