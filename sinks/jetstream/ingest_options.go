package jetstream

// FastIngest says when a firehose uses the server's fast ingest (NATS 2.14):
// messages go in batches, and the server answers every hundred of them
// rather than each. What is promised stays the same. It needs a stream that
// allows it (allow_batched), as one that [sinks.Firehose.Open] creates does where
// the server can; an existing one is left as it is. Otherwise, and with
// Options.Atomic, MsgID, Domain or APIPrefix, and in a bucket, each message is answered.
type FastIngest uint8

const (
	// FastIngestAuto begins a batch under sustained load, some 10,000 messages a
	// second, and ends it when there is less to do.
	FastIngestAuto FastIngest = iota
	// FastIngestOff never does, and streams are created without it.
	FastIngestOff
	// FastIngestAlways does not wait for load.
	FastIngestAlways
)

// String returns the word for it.
func (f FastIngest) String() string {
	switch f {
	case FastIngestAuto:
		return "auto"
	case FastIngestOff:
		return "off"
	case FastIngestAlways:
		return "always"
	}
	return "unknown"
}
