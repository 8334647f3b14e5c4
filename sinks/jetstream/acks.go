package jetstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Faults after which the stream's tail says how to go on.
var (
	errAckTimeout   = errors.New("the server acknowledged nothing in time")
	errDisconnected = errors.New("the connection was lost")
	errNoLeader     = errors.New("the stream has no leader at present")
	errAckLost      = errors.New("an acknowledgement was lost")
)

// An ackParser reads the server's answers to publishes. A stream's positive
// answers differ only in their number, so after the first one the rest is read
// without a JSON decoder.
type ackParser struct {
	stream string
	prefix []byte // of a positive answer, up to its number
}

// parse returns the sequence under which a message was stored.
func (p *ackParser) parse(m *nats.Msg) (uint64, error) {
	if seq, ok := p.fast(m.Data); ok {
		return seq, nil
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return 0, nats.ErrNoResponders
	}
	var ack struct {
		Stream string           `json:"stream"`
		Seq    uint64           `json:"seq"`
		Error  *natsjs.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Stream != p.stream {
		return 0, fmt.Errorf("acknowledgement from stream %q, want %q", ack.Stream, p.stream)
	}
	if mark := []byte(`"seq":`); p.prefix == nil && bytes.Count(m.Data, mark) == 1 {
		p.prefix = bytes.Clone(m.Data[:bytes.Index(m.Data, mark)+len(mark)])
	}
	return ack.Seq, nil
}

func (p *ackParser) fast(data []byte) (uint64, bool) {
	if p.prefix == nil || !bytes.HasPrefix(data, p.prefix) {
		return 0, false
	}
	digits := data[len(p.prefix):]
	last := len(digits) - 1
	if last < 1 || last > 19 || digits[last] != '}' {
		return 0, false
	}
	var seq uint64
	for _, b := range digits[:last] {
		if b < '0' || b > '9' {
			return 0, false
		}
		seq = seq*10 + uint64(b-'0')
	}
	return seq, true
}

// refused reports whether the server refused a message because of what is
// before it.
func refused(err error) bool {
	api, ok := errors.AsType[*natsjs.APIError](err)
	return ok && (api.ErrorCode == natsjs.JSErrCodeStreamWrongLastSequence || api.ErrorCode == natsjs.JSErrCodeStreamWrongLastSequenceConstant)
}
