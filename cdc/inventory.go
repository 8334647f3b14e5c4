package cdc

// An inventory is what a source needs to know of a database before it touches
// it. Everything in it comes from catalog queries of one ordinary connection.
// Of a server older than minVersion, only the first group is filled.
type inventory struct {
	version  int // server_version_num, such as 150018
	database string
	user     string
	provider string // a role that only one managed service has, "" elsewhere

	systemID    uint64 // pg_control_system(), stable for the life of the cluster; 0 if it is not to be known
	timeline    uint32 // 0 on a standby
	superuser   bool
	replication bool // rolreplication, or what a managed service has instead
	createDB    bool // CREATE privilege on the database, needed to create a publication
	recovery    bool // a standby

	feedback     bool   // hot_standby_feedback
	primarySlot  string // primary_slot_name
	awaitedSlots string // synchronized_standby_slots, "" before 17

	walLevel          string
	synchronousCommit string
	walWriterDelay    string // with unit, such as 200ms
	maxWALKeep        string // max_slot_wal_keep_size with unit, -1 for no limit
	maxSlots          int
	usedSlots         int
	maxSenders        int
	usedSenders       int

	tables      []tableInfo          // that the options ask for, sorted by schema and name
	skipped     []tableInfo          // unlogged ones that only schema.* or no pattern asks for
	unmatched   []string             // entries of Options.Tables that no table matches
	similar     map[string][]string  // names close to an unmatched one, best first
	outboxes    map[pattern][]string // the columns of those that exist
	publication *publicationInfo
	slot        *slotInfo
}

// A tableInfo is one table that can be published: an ordinary or a
// partitioned table. Partitions of a listed root are left out. Where a
// publication does not publish via the root, the partitions stand for it,
// unless the root was asked for by name.
type tableInfo struct {
	oid         uint32
	schema      string
	name        string
	partitioned bool
	kind        byte   // pg_class.relkind: r or p; others only if asked for by name
	unlogged    bool   // or temporary or foreign: cannot be published
	refusal     string // why it cannot be published, "" if it can
	identity    byte   // pg_class.relreplident: d, n, f or i
	identified  bool   // the identity works: a primary key for d, an index for i
	primaryKey  []string
	owned       bool    // by the current user, directly or by membership
	readable    bool    // SELECT privilege, and USAGE on the schema
	rowSecurity bool    // policies hide rows from the current user
	rows        float64 // pg_class.reltuples, or their sum over partitions; -1 if never analysed
	published   bool    // covered by the publication
	publishedAs string  // the root whose name its changes carry, "" for its own
	filtered    bool    // the publication sends only some rows or columns

	ancestors []uint32   // of a partition, its parent first
	parts     []partInfo // the leaves of a partitioned table
}

func (t *tableInfo) String() string { return t.schema + "." + t.name }

// sql is the name as a statement needs it.
func (t *tableInfo) sql() string { return quote(t.schema, t.name) }

// A partInfo is a leaf partition. Postgres looks at its replica identity, not
// at the root's.
type partInfo struct {
	schema     string
	name       string
	identified bool
	published  bool
}

type publicationInfo struct {
	allTables bool
	viaRoot   bool
	inserts   bool
	updates   bool
	deletes   bool
	truncates bool
}

type slotInfo struct {
	name      string
	physical  bool
	plugin    string
	database  string
	temporary bool
	active    bool
	activePID int32
	activeBy  string // application name and address of the holder, as far as visible
	restart   LSN
	confirmed LSN
	walStatus string // reserved, extended, unreserved, lost
	reason    string // why it was invalidated, where the server says (17 and later)
	retained  int64  // bytes of WAL kept for it
	lag       int64  // bytes from confirmed to the current position
	failover  bool   // kept in step on standbys (17 and later)
	synced    bool   // on a standby: the copy of a primary's slot (17 and later)
}
