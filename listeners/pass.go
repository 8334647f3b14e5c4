package listeners

import "time"

// quiet is the kind of a batch that is told to nobody. It is no constant of type
// Kind, since no listener ever sees it.
const quiet = 255

// quietBytes is what such a batch takes, so that these too are bounded.
const quietBytes = 256

// Pass is [Feed.Append] for a position without a batch: up to there, nothing
// has happened that the feed would tell. Its subscriptions have handled it when
// they have handled everything before, so [Subscription.Wait] and
// [Subscription.Stored] know it. It counts in a [Lag] until then.
func (f *Feed) Pass(p Position) {
	f.Append(&Batch{Kind: quiet, Tx: Tx{Time: time.Now()}, Position: p, First: true, Last: true, Size: quietBytes})
}
