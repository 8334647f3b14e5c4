package sinks

// FirehoseAcks is how a [FirehoseBroker] says what became of messages. Its
// methods do not block and may be called concurrently, and while the broker
// holds locks of its own: the firehose never calls the broker from within them.
// From the return of Recover on, and after Close, nothing may be said of the
// messages of before.
type FirehoseAcks struct{ w *window }

// Taken says that messages up to a number need no room in the window any more:
// they are the broker's business. It is for brokers that store later what they
// have taken; Stored says it too.
func (a *FirehoseAcks) Taken(number uint64) { a.w.take(number) }

// Stored says that all messages up to a number are stored. It need not be called for
// each.
func (a *FirehoseAcks) Stored(number uint64) { a.w.ack(number) }

// Fail says that something sent may not be stored, or not all of it. Nothing
// more is sent until the firehose has called Recover. Of several errors the first
// counts.
func (a *FirehoseAcks) Fail(err error) { a.w.fail(err) }

// Kept reports whether all that is not known to be stored can be sent again, see
// [FirehoseConfig].KeepBytes. If not, Recover must not return nil.
func (a *FirehoseAcks) Kept() bool { return a.w.whole() }
