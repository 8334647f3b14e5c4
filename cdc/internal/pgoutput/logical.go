package pgoutput

// A Message is what pg_logical_emit_message wrote.
type Message struct {
	Transactional bool
	LSN           uint64 // where its record starts
	Prefix        string
	Content       []byte // of the message that was parsed
}

// ParseMessage reads a Message in the form outside of streamed transactions,
// whose messages have the transaction's number in front.
func ParseMessage(msg []byte) (Message, error) {
	r := fields(msg)
	m := Message{Transactional: r.byte()&1 != 0, LSN: r.uint64(), Prefix: r.string()}
	n := r.uint32()
	if uint64(n) > uint64(len(r.rest)) {
		return m, ErrTruncated
	}
	m.Content, r.rest = r.rest[:n:n], r.rest[n:]
	return m, r.end()
}
