package kafka

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

const (
	attributePrefix = "ce_"
	headerSequence  = attributePrefix + "sequence"
	maxHeaders      = 14
	blockBytes      = 64 << 10
)

var (
	specVersion = []byte(sinks.SpecVersion)
	contentType = []byte(sinks.ContentType)
	isTrue      = []byte("true")
)

// A chunk is a part of a batch on its way to the brokers. Its records share
// blocks of memory.
type chunk struct {
	records []*kgo.Record
	last    uint64 // the number of the last message

	slab    []kgo.Record
	headers []kgo.RecordHeader
	block   []byte
}

// newChunk has room for this many records.
func newChunk(n int) *chunk {
	return &chunk{
		records: make([]*kgo.Record, 0, n), slab: make([]kgo.Record, 0, n),
		headers: make([]kgo.RecordHeader, 0, n*maxHeaders),
	}
}

// keep returns a copy that lives as long as the chunk.
func (c *chunk) keep(s string) []byte {
	at := c.grow(len(s))
	c.block = append(c.block, s...)
	return c.block[at:len(c.block):len(c.block)]
}

func (c *chunk) grow(n int) (at int) {
	if cap(c.block)-len(c.block) < n {
		c.block = make([]byte, 0, max(n, blockBytes))
	}
	return len(c.block)
}

// add puts a frame in.
func (c *chunk) add(f *sinks.Frame, topic string, partition int) *kgo.Record {
	at := len(c.headers)
	header := func(name string, value []byte) {
		c.headers = append(c.headers, kgo.RecordHeader{Key: name, Value: value})
	}
	header(attributePrefix+"specversion", specVersion)
	header(attributePrefix+"type", c.keep(f.Type))
	header(attributePrefix+"source", c.keep(f.Source))
	header(attributePrefix+"id", c.keep(f.ID))
	header(headerSequence, c.keep(f.Sequence))
	var key []byte
	if f.Subject != "" {
		key = c.keep(f.Subject)
		header(attributePrefix+"subject", key)
		header(attributePrefix+"partitionkey", key)
	}
	if f.Time != "" {
		header(attributePrefix+"time", c.keep(f.Time))
	}
	if f.TxID != "" {
		header(attributePrefix+"txid", c.keep(f.TxID))
	}
	if f.TxEnd {
		header(attributePrefix+"txend", isTrue)
	}
	if f.Cause != "" {
		header(attributePrefix+"cause", c.keep(f.Cause))
	}
	if f.DataRef != "" {
		header(attributePrefix+"dataref", c.keep(f.DataRef))
	}
	header("content-type", contentType)

	body := c.grow(len(f.Body))
	c.block = append(c.block, f.Body...)
	return c.append(kgo.Record{
		Topic: topic, Partition: int32(partition), Key: key,
		Value:   c.block[body:len(c.block):len(c.block)],
		Headers: c.headers[at:len(c.headers):len(c.headers)],
	})
}

func (c *chunk) append(r kgo.Record) *kgo.Record {
	c.slab = append(c.slab, r) // there is room: see newChunk
	one := &c.slab[len(c.slab)-1]
	c.records = append(c.records, one)
	return one
}

// drop takes back the last record.
func (c *chunk) drop() { c.records = c.records[:len(c.records)-1] }

func (c *chunk) full() bool { return len(c.slab) == cap(c.slab) }

// size is about what a record takes, uncompressed.
func size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value) + 16
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 2
	}
	return n
}

// topicOf returns the writer's topic for an address.
func (w *writer) topicOf(address string) string {
	address = topicOf(address)
	if w.compacts {
		return w.prefix + address[len(sinks.DatabaseAddress(w.database))+1:]
	}
	return address
}

// topicOf returns the topic of an address: all but operation and partition.
func topicOf(address string) string {
	for range 2 {
		address = address[:strings.LastIndexByte(address, '.')]
	}
	return address
}
