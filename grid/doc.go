// Package grid keeps regions: typed in-memory maps whose changes are events.
//
// A [Region] is read like a map and heard like a table. It is a
// [listeners.Source], so the same listener works on a region and on a Postgres
// table. [Open] makes a region that this process writes. [Mirror] makes one
// that follows any other source and is read-only.
//
// # What is promised
//
// Order: changes of one region form one sequence, the order in which they were
// committed. Every subscription hears that sequence; a key's events never swap.
//
// Visibility: a change is in the region before any listener hears of it, and
// before the call that wrote it returns. What [Region.Get] and [Region.All] return is
// always the state between two transactions, never half of one. Reads take no
// lock and never wait for a writer.
//
// Completeness: each write of one key (Put, Insert, Update, CompareAndPut, a
// Delete of an existing key) is exactly one event, in a batch of its own, also
// when the new value equals the old one. [Region.PutAll] is one batch with one
// event for each key, and [Region.Clear] one event for all. An event carries
// the whole old and the whole new value; that of Clear carries none.
//
// Single writes that meet are committed together, which is faster, and remain
// transactions of their own: each with its position, its batch, its condition.
//
// Conditions: Insert, Update and CompareAndPut decide and write with nobody in
// between. If they fail, nothing was stored and no event exists. An entry's
// version is the position of its last change, and never comes twice.
//
// Transactions: what the function given to [Grid.Do] writes is committed in all
// regions of the grid or in none, as one batch for each region with the net
// effect on each key. Transactions and single writes are as if they had run one
// after another. The function reads its own writes, and is called again if
// something that it read was changed before it could commit.
//
// Keys: a key is one column of its events, and a struct one for each field,
// where a struct or an array within is one column, too. The text of a column is
// that of its kind, what [encoding.TextMarshaler] says, or JSON; where that is
// not different for different keys, as for bytes that are not UTF-8, it is the
// key's encoding in hexadecimal behind "\x". Other types are keys by a
// [KeyCodec].
//
// Indexes: an [Index] shows a write when the region does, and a unique one is
// never violated, by single writes and transactions together. Two keys may swap
// their values within a transaction.
//
// Joining: a subscription with [listeners.SubscribeOptions].Current hears a
// consistent snapshot, then Live, then every later change once.
//
// Expiry: an entry's time is up when it has been in the region for its time to
// live ([RegionOptions].TTL, [Region.PutTTL]) or has not been used for
// [RegionOptions].Idle. From that moment on nobody finds it: not [Region.Get]
// nor any other read of the region, its indexes or a transaction, and Insert
// succeeds. It is deleted by a transaction of its own with
// [listeners.CauseExpire], the old value and no tag: within some milliseconds
// or, if a listener holds writers back, when there is room for more. Entries
// that end together leave in one batch, 1000 at most, in the order of their
// ends. What is written to a key comes after the end of what was there, and a
// transaction that has read an entry whose time is up by its commit is called
// again. Times are measured by a clock that nobody can set.
//
// A [Snapshot] is what the events up to its position say, so it has an entry
// until its delete, and [Region.Len] counts it. A subscription with Current does
// not: before its snapshot, all that is due is deleted.
//
// Eviction: a region never shows more than [RegionOptions].MaxEntries. The
// transaction that adds too much is followed at once by another, which deletes
// with [listeners.CauseEvict] and the old values what was used least recently;
// what has to expire anyway leaves first, with that cause. Listeners hear of the
// addition, then of the eviction. A use is a write, or a read that
// [RegionOptions].Idle counts, and the time of a use is the number of
// transactions before it: between two transactions, all reads are at one moment,
// after what was written before it. Of entries used at the same moment, the one
// written first leaves first.
//
// Loaders: [Loader.Get] fills a region from the store behind it, by one call for
// all who miss a key at a time. A load is a transaction with
// [listeners.CauseLoad]. What is written or deleted while it runs wins over it.
// [Region.Get] and every other read look at the region alone.
//
// Writers: who was added with [Grid.AddWriter] is asked before each commit, once
// for a transaction over however many regions, under no lock. A writer may refuse
// all of it or store other values, and is asked again if what the transaction is
// based on changes meanwhile.
//
// A goroutine waits for the next end while there are entries that have one.
// Close waits for it.
//
// Queries: a listener of a [Query] hears what enters, changes within and leaves
// a set of entries, exactly once and in order, from a consistent beginning: the
// set rebuilt from its events is at each position that of the region. Nobody
// keeps the sets in memory; that is why the function of a query, or of its
// index, must depend on nothing but the entry. A listener of a query is a
// subscription like any other: its own pace, its own [listeners.Overflow], its
// own end. If it blocks writers, by being slow, it still keeps no other listener
// from what was committed.
//
// Bounded memory: a region holds back at most
// [RegionOptions].FeedBytes for its slowest listener, and one more batch of
// each writer, with one of what it evicts and one of the ends that it meets.
// Then writes wait, until the listener moves on or their context
// ends. Nothing is dropped.
// The bound counts sizes that are estimated, see [RegionOptions].ValueBytes.
//
// A listener may write into any region, also into the one it hears, if it
// passes on the context it was called with: it is not made to wait for itself.
// Two listeners that write into each other's full regions do wait for each
// other.
//
// Mirrors: one transaction of the source is one transaction and one batch of
// the mirror, with the source's position, time, transaction number and tag. Two of
// them are never merged. Before is always complete, also where Postgres sent
// only the key, and columns that Postgres left out of an update are filled in.
// A mirror that cannot go on stops with an error ([Region.Err]), keeps what it
// holds, and logs it.
//
// Groups: the regions of a [Group] follow several collections of one source, and
// a transaction of the source appears in all of them at once, to [Grid.Do] and
// to [Group.Snapshot]. It is one batch of the group and one of each region that
// it changed. While the source sends some of its collections anew, after it has
// lost its place, these stay as they were until all of them are complete. Until
// then, what a transaction did to them is missing where the others show it.
//
// # What is not promised
//
// Nothing is stored: a region begins empty in each process, and events that
// were not handled when the process ended are gone. A region opened again has
// new positions, see [listeners.Position].
//
// Values are not copied. A value must not be changed after Put, nor what it
// points to, by anybody: readers, listeners and older snapshots share it.
//
// Reads through an index see the present state: a [Snapshot] and a [TxRegion]
// have none of their own. A transaction does not notice what it has read
// through one, or from a region directly.
//
// Two queries, and a query and its region, are told independently. A write that
// has returned may not have come to a query's listener yet: ask its
// subscription's Wait.
//
// There is no order between two regions: who hears or reads both may see a
// transaction in one and not yet in the other. Only what a transaction reads of
// both belongs together, and what a [Group] shows and tells. A grid as a whole
// is no source: its regions count their positions each for itself, and to put
// their writes into one order would make writers of different regions wait for
// each other.
package grid
