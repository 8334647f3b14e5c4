package sinks

import "github.com/rowcall/rowcall/listeners"

// A Frame is one message before a broker's package puts it on its wire. The
// attributes have their plain values; a binding that wants them percent-encoded
// does that itself. An empty attribute is absent.
type Frame struct {
	// Address is the dotted name, such as "cdc.shop.public.seats.update.007".
	Address string
	// Partition is the number in Address, or [All].
	Partition int

	ID       string
	Source   string
	Type     string
	Subject  string // and partitionkey
	Time     string
	Sequence string
	TxID     string
	TxEnd    bool
	Cause    string
	// Filling says that a snapshot is not complete and goes on behind this change.
	// Encode leaves it false, since a batch does not say so.
	Filling bool
	// DataRef says where the body is if it is parked, see [TooLargePark].
	DataRef string

	// Body is the JSON body.
	Body []byte
}

// An Encoder makes frames. It remembers what it computed for a schema and a
// transaction, and reuses its memory: one goroutine at a time.
type Encoder struct {
	partitions int
	region     string // whose resets it encodes; "" for those of a database

	frame Frame
	text  []byte

	schema *listeners.Schema // of names
	names  *names
	known  map[*listeners.Schema]*names

	tx   listeners.Tx // of time and txID
	time string
	txID string
}

// maxSchemas bounds what an encoder remembers. Every change of a table makes a
// new schema.
const maxSchemas = 4096

// names are the strings that depend on the schema alone.
type names struct {
	source     string
	collection string // escaped, for the subject
	address    string
	addresses  [listeners.Message + 1][]string // by op and partition; filled when needed
	all        [listeners.Message + 1]string
}

// NewEncoder returns an encoder for this many partitions, between 1 and
// [MaxPartitions]; 0 means [DefaultPartitions]. Other numbers are taken as the
// nearest of these.
func NewEncoder(partitions int) *Encoder {
	if partitions == 0 {
		partitions = DefaultPartitions
	}
	return &Encoder{
		partitions: min(max(partitions, 1), MaxPartitions),
		known:      make(map[*listeners.Schema]*names),
	}
}

// NewRegionEncoder is [NewEncoder] for the events of one region.
func NewRegionEncoder(region string, partitions int) *Encoder {
	c := NewEncoder(partitions)
	c.region = region
	return c
}

// Encode returns message i of a batch, 0 <= i < [Len]; of a [listeners.Live]
// batch, for who wants to store those too, the one with i = 0. The frame and its body
// are valid until the next call; the strings may be kept.
func (c *Encoder) Encode(b *listeners.Batch, i int) *Frame {
	if b.Tx.ID != c.tx.ID || !b.Tx.Time.Equal(c.tx.Time) {
		c.tx = b.Tx
		c.time = string(appendTime(c.text[:0], b.Tx.Time))
		c.txID = txID(b.Tx)
	}
	f := &c.frame
	f.Time, f.TxID = c.time, c.txID
	if b.Kind == listeners.Reset || b.Kind == listeners.Live {
		c.marker(b)
		return f
	}
	e := &b.Events[i]
	n := c.lookup(e.Schema)

	// One string holds the id, which contains the sequence, and the subject.
	c.text = append(append(c.text[:0], n.source...), '/')
	sequence := len(c.text)
	c.text = e.Position.Append(c.text)
	id := len(c.text)
	var key int
	c.text, key = appendSubject(c.text, n.collection, e)
	s := string(c.text)

	f.Partition = All
	if !forAll(e) {
		f.Partition = Partition(e.Schema.Collection(), c.text[key:], c.partitions)
	}
	f.Address = n.get(e.Op, f.Partition, c.partitions)
	f.ID, f.Sequence, f.Subject = s[:id], s[sequence:id], s[id:]
	f.Source = n.source
	f.Type = eventType(e.Op)
	f.TxEnd = txEnd(b, i)
	f.Cause = causeOf(e)
	f.Body = AppendBody(f.Body[:0], e)
	return f
}

// marker encodes a reset or a live marker.
func (c *Encoder) marker(b *listeners.Batch) {
	f := &c.frame
	f.Partition = All
	f.Sequence = b.Position.String()
	f.Source = DatabaseSource(b.Source)
	if c.region != "" {
		f.Source = GridSource(b.Source)
	}
	f.ID = f.Source + "/" + f.Sequence
	f.Subject, f.TxEnd, f.Cause = "", false, ""
	if b.Kind == listeners.Live {
		f.Type, f.Address = liveType, LiveAddress(b.Source)
		if c.region != "" {
			f.Address = RegionLiveAddress(b.Source, c.region)
		}
		f.Body = append(f.Body[:0], `{"op":"live"}`...)
		return
	}
	f.Type, f.Address = resetType, ResetAddress(b.Source)
	if c.region != "" {
		f.Address = RegionResetAddress(b.Source, c.region)
	}
	f.Body = appendResetBody(f.Body[:0], b)
}

func (c *Encoder) lookup(s *listeners.Schema) *names {
	if s == c.schema {
		return c.names
	}
	n, ok := c.known[s]
	if !ok {
		if len(c.known) >= maxSchemas {
			clear(c.known)
		}
		n = &names{
			source:     schemaSource(s),
			collection: string(appendEscaped(nil, s.Collection())),
			address:    CollectionAddress(s),
		}
		c.known[s] = n
	}
	c.schema, c.names = s, n
	return n
}

func (n *names) get(op listeners.Op, partition, partitions int) string {
	if int(op) >= len(n.all) {
		return n.build(op, partition)
	}
	if partition == All {
		if n.all[op] == "" {
			n.all[op] = n.build(op, All)
		}
		return n.all[op]
	}
	if n.addresses[op] == nil {
		n.addresses[op] = make([]string, partitions)
	}
	a := &n.addresses[op][partition]
	if *a == "" {
		*a = n.build(op, partition)
	}
	return *a
}

func (n *names) build(op listeners.Op, partition int) string {
	return n.address + "." + op.String() + "." + PartitionToken(partition)
}

// AppendCloudEvent appends message i of a batch, 0 <= i < [Len], as one JSON
// object: a CloudEvent in structured mode, the body as its data. There is no
// line break in it and none after it.
func AppendCloudEvent(dst []byte, b *listeners.Batch, i int) []byte {
	var e *listeners.Event
	position, source, typ := b.Position, DatabaseSource(b.Source), resetType
	if b.Kind != listeners.Reset {
		e = &b.Events[i]
		position, source, typ = e.Position, schemaSource(e.Schema), eventType(e.Op)
	}
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = append(append(dst, source...), '/')
	dst = append(position.Append(dst), `","source":"`...)
	dst = append(append(dst, source...), `","type":"`...)
	dst = append(append(dst, typ...), '"')
	if e != nil {
		subject, _ := appendSubject(nil, string(appendEscaped(nil, e.Schema.Collection())), e)
		dst = append(dst, `,"subject":`...)
		dst = appendJSONString(dst, string(subject))
		dst = append(dst, `,"partitionkey":`...)
		dst = appendJSONString(dst, string(subject))
	}
	if t := b.Tx.Time; !t.IsZero() {
		dst = append(dst, `,"time":"`...)
		dst = append(appendTime(dst, t), '"')
	}
	dst = append(dst, `,"sequence":"`...)
	dst = append(position.Append(dst), '"')
	if id := txID(b.Tx); id != "" {
		dst = append(dst, `,"txid":"`...)
		dst = append(append(dst, id...), '"')
	}
	if txEnd(b, i) {
		dst = append(dst, `,"txend":true`...)
	}
	if e != nil && causeOf(e) != "" {
		dst = append(dst, `,"cause":"`...)
		dst = append(append(dst, causeOf(e)...), '"')
	}
	dst = append(dst, `,"datacontenttype":"application/json","data":`...)
	if e == nil {
		dst = appendResetBody(dst, b)
	} else {
		dst = AppendBody(dst, e)
	}
	return append(dst, '}')
}
