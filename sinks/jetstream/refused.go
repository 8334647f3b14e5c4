package jetstream

import (
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Codes of the JetStream API for limits that somebody has to raise.
const (
	codeMaxConsumers     natsjs.ErrorCode = 10026
	codeMaxStreams       natsjs.ErrorCode = 10027
	codeMaxBytesRequired natsjs.ErrorCode = 10113
	codeMaxBytesExceeded natsjs.ErrorCode = 10122
	codeNoLimits         natsjs.ErrorCode = 10120
)

// Codes of requests that are called wrong although they may succeed later: they
// met a cluster that moves something, or another client's change.
const (
	codeNoPeers          natsjs.ErrorCode = 10005
	codeSequenceNotFound natsjs.ErrorCode = 10043
	codeNotMember        natsjs.ErrorCode = 10044
	codeMoveInProgress   natsjs.ErrorCode = 10124
	codeMembersChange    natsjs.ErrorCode = 10202
	codeReconfigured     natsjs.ErrorCode = 10226
)

const (
	// consumerIdle is how long the server keeps a reader's consumer that nobody asks.
	consumerIdle = 30 * time.Second
	// fullFor is how long a limit of consumers may be full of those that this reader,
	// or its predecessor, has left behind.
	fullFor = consumerIdle + 10*time.Second
)

// refusal returns why the server refuses a request for good, with the remedy; ""
// where it has not refused it, or may do what was asked later.
func refusal(err error) string {
	api, said := errors.AsType[*natsjs.APIError](err)
	if !said {
		return ""
	}
	switch api.ErrorCode {
	case codeMaxConsumers:
		return "it has as many consumers as it or its account may have (max_consumers); raise that, or end another reader"
	case codeMaxStreams:
		return "the account has as many streams as it may have (max_streams); raise that, or delete a stream"
	case codeMaxBytesRequired, codeMaxBytesExceeded:
		return "the account wants streams with a limit in bytes, and how high at most; set MaxBytes to no more than that"
	case codeNoLimits:
		return "the account has no JetStream limits for this number of replicas; set them there, or use another number"
	case codeAccountExceeded, codeNoPeers, codeSequenceNotFound, codeNotMember, codeMoveInProgress, codeMembersChange, codeReconfigured,
		natsjs.JSErrCodeStreamWrongLastSequence, natsjs.JSErrCodeStreamWrongLastSequenceConstant, natsjs.JSErrCodeConsumerNameExists,
		natsjs.JSErrCodeConsumerAlreadyExists, natsjs.JSErrCodeConsumerExists, natsjs.JSErrCodeConsumerDoesNotExist:
		return ""
	default:
		if api.Code == codeBadRequest {
			return "the server refuses the request, and will again; see what it says, and which version it is"
		}
		return ""
	}
}

// forbidden returns what the server has forbidden this user to publish, if it is the last
// thing that it has said, did not say it before, and it concerns subjects with this text in
// them. A request that is forbidden gets no other answer.
func forbidden(nc *nats.Conn, before error, subjects string) error {
	err := nc.LastError()
	if !errors.Is(err, nats.ErrPermissionViolation) || err == before { //nolint:errorlint // the very same error
		return nil
	}
	_, subject, found := strings.Cut(err.Error(), `Publish to "`)
	if !found {
		return nil
	}
	if subject, _, _ = strings.Cut(subject, `"`); !strings.Contains(subject, subjects) {
		return nil
	}
	return err
}
