package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// What the reply address of a message says of it: its batch, how often the server
// is to answer at least, that nothing may be stored behind a gap, its number, and
// what it does (ADR-50).
const (
	ingestSuffix = ".$FI"
	ingestGap    = ".fail."
	ingestStart  = ".0" + ingestSuffix
	ingestFirst  = ingestGap + "1" + ingestStart // of the first message
	ingestAppend = ".1" + ingestSuffix
	ingestEnd    = ".3" + ingestSuffix // is not stored itself
)

// codeUnknownBatch is the server's answer to a message of a batch that is over.
const codeUnknownBatch natsjs.ErrorCode = 10208

// Faults of a batch after which the stream's tail says how to go on.
var (
	errBatchGap   = errors.New("a message of a batch was lost on its way")
	errBatchEnded = errors.New("the server ended a batch")
)

// An ingestAnswer is what the server says of a batch.
type ingestAnswer struct {
	count uint64 // messages of the batch that are stored
	seq   uint64 // of the last one in the stream, if final
	final bool   // the batch is over, and all is said of it
	over  bool   // err says that there is no such batch any more
	none  bool   // and that nothing of it was stored
	lost  bool   // there will be no more answers
	err   error
}

// parseIngest reads an answer. Only the final one names the stream and a
// sequence of it: the others count the messages of the batch.
func parseIngest(m *nats.Msg, stream string) ingestAnswer {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return ingestAnswer{err: nats.ErrNoResponders, lost: true}
	}
	var a struct {
		Type   string           `json:"type"`
		Stream string           `json:"stream"`
		Seq    uint64           `json:"seq"`
		Batch  string           `json:"batch"`
		Count  uint64           `json:"count"`
		Error  *natsjs.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return ingestAnswer{err: fmt.Errorf("acknowledgement: %w", err)}
	}
	switch {
	case a.Error != nil:
		answer := ingestAnswer{err: a.Error}
		if a.Type == "" { // it is not about one message among others
			answer.none = strings.HasSuffix(m.Subject, ingestFirst)
			answer.over = answer.none || a.Error.ErrorCode == codeUnknownBatch
			answer.lost = !answer.over && strings.HasSuffix(m.Subject, ingestEnd)
		}
		return answer
	case a.Type == "ack":
		return ingestAnswer{count: a.Seq}
	case a.Type == "gap":
		return ingestAnswer{err: errBatchGap}
	case a.Batch != "" && a.Stream == stream:
		return ingestAnswer{count: a.Count, seq: a.Seq, final: true}
	}
	return ingestAnswer{err: fmt.Errorf("acknowledgement of a batch: %.200q", m.Data)}
}
