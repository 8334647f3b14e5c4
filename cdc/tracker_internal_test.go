package cdc

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/listeners"
)

// lastOf is the position of the last event of a transaction.
func lastOf(commit uint64) listeners.Position {
	return listeners.Position{Epoch: 7, Commit: commit, Index: 3}
}

func TestTracker(t *testing.T) {
	commit := func(lsn uint64) func(*tracker) {
		return func(k *tracker) { k.begin(); k.commit(lastOf(lsn), LSN(lsn+8)) }
	}
	empty := func(lsn uint64) func(*tracker) {
		return func(k *tracker) { k.begin(); k.nothing(LSN(lsn+8), true) }
	}
	keepalive := func(lsn LSN) func(*tracker) { return func(k *tracker) { k.nothing(lsn, false) } }
	stored := func(p listeners.Position) func(*tracker) { return func(k *tracker) { k.stored(p) } }
	begin, abandon := (*tracker).begin, (*tracker).abandon
	none := listeners.Position{}

	for name, tc := range map[string]struct {
		do        []func(*tracker)
		stored    listeners.Position
		received  LSN
		confirmed LSN
	}{
		"nothing yet":                           {nil, everything, 0, 0},
		"start":                                 {[]func(*tracker){func(k *tracker) { k.start(50) }}, none, 50, 50},
		"start goes never back":                 {[]func(*tracker){keepalive(90), func(k *tracker) { k.start(50) }}, none, 90, 90},
		"keepalive":                             {[]func(*tracker){keepalive(90)}, none, 90, 90},
		"keepalives go never back":              {[]func(*tracker){keepalive(90), keepalive(80)}, none, 90, 90},
		"transaction":                           {[]func(*tracker){commit(100)}, none, 108, 0},
		"transaction, a part is stored":         {[]func(*tracker){commit(100)}, listeners.Position{Epoch: 7, Commit: 100, Index: 2}, 108, 0},
		"transaction, stored":                   {[]func(*tracker){commit(100)}, lastOf(100), 108, 108},
		"transaction of an older cluster":       {[]func(*tracker){commit(100)}, listeners.Position{Epoch: 6, Commit: math.MaxUint64}, 108, 0},
		"transaction, more is stored":           {[]func(*tracker){commit(100)}, lastOf(500), 108, 108},
		"first of two stored":                   {[]func(*tracker){commit(100), commit(108)}, lastOf(100), 116, 108},
		"both stored":                           {[]func(*tracker){commit(100), commit(108)}, lastOf(108), 116, 116},
		"empty transaction":                     {[]func(*tracker){empty(100)}, none, 108, 108},
		"empty one behind a pending one":        {[]func(*tracker){commit(100), empty(108)}, none, 116, 0},
		"the same, then stored":                 {[]func(*tracker){commit(100), empty(108)}, lastOf(100), 116, 116},
		"empty one between":                     {[]func(*tracker){commit(100), empty(108), commit(116)}, lastOf(100), 124, 116},
		"keepalive while pending":               {[]func(*tracker){commit(100), keepalive(150)}, none, 150, 0},
		"the same keepalive, then stored":       {[]func(*tracker){commit(100), keepalive(150)}, lastOf(100), 150, 150},
		"keepalive between pending ones":        {[]func(*tracker){commit(100), keepalive(150), commit(200), keepalive(250)}, lastOf(100), 250, 150},
		"keepalive within a transaction":        {[]func(*tracker){begin, keepalive(150)}, everything, 150, 0},
		"keepalive within a later one":          {[]func(*tracker){commit(100), begin, keepalive(150)}, lastOf(100), 150, 108},
		"keepalive after a broken one":          {[]func(*tracker){begin, abandon, keepalive(150)}, none, 150, 150},
		"keepalive after an empty one":          {[]func(*tracker){empty(100), keepalive(150)}, none, 150, 150},
		"pending stays over a break":            {[]func(*tracker){commit(100), abandon, keepalive(60)}, none, 108, 0},
		"sent again while pending":              {[]func(*tracker){commit(100), commit(200), abandon, empty(100)}, lastOf(100), 208, 108},
		"sent again while pending, then stored": {[]func(*tracker){commit(100), commit(200), abandon, empty(100)}, lastOf(200), 208, 208},
		"sent again when stored":                {[]func(*tracker){commit(100), stored(lastOf(100)), abandon, empty(100)}, none, 108, 108},
		"stored earlier counts later, too":      {[]func(*tracker){commit(100), stored(lastOf(100)), keepalive(150), commit(200)}, none, 208, 150},
	} {
		t.Run(name, func(t *testing.T) {
			var k tracker
			for _, do := range tc.do {
				do(&k)
			}
			received, confirmed := k.stored(tc.stored)
			if received != tc.received || confirmed != tc.confirmed {
				t.Errorf("stored(%s) = %d, %d; want received %d, confirmed %d", tc.stored, received, confirmed, tc.received, tc.confirmed)
			}
		})
	}
}

// TestConfirmedSkipsNothing plays a server's log over connections that break,
// and a listener that stores at its own pace. What may be confirmed must never
// lie behind the commit of a transaction that is not stored, which the server
// would then leave out; and when all is stored it must be all.
func TestConfirmedSkipsNothing(t *testing.T) {
	type transaction struct {
		commit, end uint64
		empty       bool
		delivered   bool
	}
	rapid.Check(t, func(rt *rapid.T) {
		var (
			k           tracker
			log         []transaction
			stored      listeners.Position
			confirmed   LSN
			lastRecv    LSN
			sent        int    // transactions sent on this connection, as an index of log
			position    uint64 // of the server on this connection
			insideOfTx  bool
			previous    uint64 = 64
			connections        = 1
		)
		for range rapid.IntRange(1, 12).Draw(rt, "transactions") {
			commit := previous + 8*rapid.Uint64Range(0, 3).Draw(rt, "gap")
			previous = commit + 8
			log = append(log, transaction{commit: commit, end: previous, empty: rapid.Bool().Draw(rt, "empty")})
		}
		check := func() {
			received, now := k.stored(stored)
			if now < confirmed || received < lastRecv || received < now {
				rt.Fatalf("stored(%s) = %d, %d after %d, %d", stored, received, now, lastRecv, confirmed)
			}
			confirmed, lastRecv = now, received
			for _, tx := range log {
				if tx.commit < uint64(confirmed) && !tx.empty && lastOf(tx.commit).Compare(stored) > 0 {
					rt.Fatalf("confirmed %d with %s stored skips the transaction at %d", confirmed, stored, tx.commit)
				}
			}
		}
		finish := func() {
			tx := &log[sent]
			if tx.empty || tx.delivered {
				k.nothing(LSN(tx.end), true)
			} else {
				k.commit(lastOf(tx.commit), LSN(tx.end))
				tx.delivered = true
			}
			insideOfTx, position = false, tx.end
			sent++
		}
		rt.Repeat(map[string]func(*rapid.T){
			"begin": func(rt *rapid.T) {
				if insideOfTx || sent == len(log) {
					rt.Skip("no transaction begins")
				}
				k.begin()
				insideOfTx = true
			},
			"commit": func(rt *rapid.T) {
				if !insideOfTx {
					rt.Skip("no transaction is open")
				}
				finish()
			},
			"keepalive": func(*rapid.T) {
				limit := previous + 100 // the server has read up to the next commit at most
				if sent < len(log) {
					limit = log[sent].commit
				}
				if position < limit {
					position = rapid.Uint64Range(position, limit).Draw(rt, "position")
				}
				k.nothing(LSN(position), false)
			},
			"store": func(*rapid.T) {
				for _, tx := range log {
					if tx.delivered && lastOf(tx.commit).Compare(stored) > 0 {
						stored = lastOf(tx.commit)
						if rapid.Bool().Draw(rt, "enough") {
							break
						}
					}
				}
			},
			"connect again": func(*rapid.T) {
				k.abandon()
				connections++
				position = rapid.Uint64Range(0, uint64(confirmed)).Draw(rt, "from")
				insideOfTx, sent = false, 0
				for sent < len(log) && log[sent].commit < position {
					sent++
				}
			},
			"": func(*rapid.T) { check() },
		})
		for sent < len(log) {
			if !insideOfTx {
				k.begin()
			}
			finish()
		}
		stored = everything
		check()
		if uint64(confirmed) < previous {
			rt.Fatalf("with everything stored, over %d connections, %d may be confirmed, want %d", connections, confirmed, previous)
		}
	})
}

// What a backfill waits for holds back all that comes after it.
func TestTrackerHolds(t *testing.T) {
	var tr tracker
	at := func(commit uint64) listeners.Position { return listeners.Position{Epoch: 1, Commit: commit, Index: 1} }
	everything := listeners.Position{Epoch: math.MaxUint64, Commit: math.MaxUint64, Index: math.MaxUint32}
	confirmed := func(upTo listeners.Position, want LSN) {
		t.Helper()
		if _, got := tr.stored(upTo); got != want {
			t.Errorf("stored(%s) confirms %s, want %s", upTo, got, want)
		}
	}
	tr.commit(at(10), 11)
	tr.hold(20)
	tr.nothing(25, false)
	tr.commit(at(30), 31)
	tr.hold(40)
	tr.nothing(45, false)
	confirmed(everything, 11)
	tr.release(at(39)) // the first
	confirmed(at(30), 11)
	confirmed(at(39), 31)
	confirmed(everything, 31)
	tr.release(at(50))
	confirmed(at(49), 31)
	confirmed(at(50), 45)
	tr.release(at(60)) // nothing is held
	confirmed(everything, 45)
}

// A server that begins between a PREPARE and its COMMIT PREPARED would send the
// latter alone.
func TestNothingIsConfirmedInsideAPreparedTransaction(t *testing.T) {
	var tr tracker
	position := func(commit uint64) listeners.Position {
		return listeners.Position{Epoch: 1, Commit: commit, Index: 1}
	}
	confirmed := func(upTo uint64, want LSN) {
		t.Helper()
		if _, got := tr.stored(position(upTo)); got != want {
			t.Errorf("stored up to %d confirms %s, want %s", upTo, got, want)
		}
	}
	tr.start(5)
	tr.prepared(1, 10)
	tr.prepared(2, 20)
	tr.commit(position(30), 31)
	tr.resolved(1, 31)
	confirmed(29, 5)
	confirmed(30, 10)
	tr.prepared(3, 40)
	tr.commit(position(50), 51)
	tr.resolved(2, 51)
	confirmed(50, 10) // 3 is prepared within 2, and 2 within 1
	tr.abandon()
	tr.prepared(1, 10) // a new connection
	tr.prepared(2, 20)
	tr.resolved(1, 31)
	tr.prepared(3, 40)
	tr.resolved(2, 51)
	confirmed(50, 10)
	tr.resolved(3, 0)
	confirmed(50, 51)
	if len(tr.spans)+len(tr.held) > 0 {
		t.Errorf("spans %v and held %v stay", tr.spans, tr.held)
	}
}
