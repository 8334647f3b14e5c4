package cdc

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/listeners"
)

func xids(kind byte, xids ...uint32) []byte {
	b := []byte{kind}
	for _, xid := range xids {
		b = binary.BigEndian.AppendUint32(b, xid)
	}
	return b
}

func streamStart(xid uint32, first byte) []byte { return append(xids('S', xid), first) }

var streamStop = []byte("E")

func streamCommit(xid uint32, commit, end uint64) []byte {
	return append(xids('c', xid), msgCommit(commit, end)[1:]...)
}

// in makes a message one of a block.
func in(subXID uint32, msg []byte) []byte { return append(xids(msg[0], subXID), msg[1:]...) }

// prepare is a Prepare of any kind; commitPrepared has the same form.
func prepare(kind byte, at, end uint64, xid uint32) []byte {
	b := msgCommit(at, end)
	if kind == 'b' {
		b = append(b[:1], b[2:]...) // without flags
	}
	b[0] = kind
	return append(binary.BigEndian.AppendUint32(b, xid), "gid\x00"...)
}

func rollbackPrepared(prepareEnd, end uint64, xid uint32) []byte {
	b := msgCommit(prepareEnd, end)
	b[0] = 'r'
	b = binary.BigEndian.AppendUint64(b, uint64(pgoutput.Micros(txTime)))
	return append(binary.BigEndian.AppendUint32(b, xid), "gid\x00"...)
}

var seatsTable = msgRelation(1, "seats", 'd', "*id", "no")

func TestAStreamedTransactionIsDeliveredWhenItCommits(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(streamStart(42, 1), in(42, seatsTable), in(42, msgInsert(1, "1", "A1")), in(43, msgInsert(1, "2", "A2")), streamStop,
		msgBegin(90, 50), msgRelation(2, "trains", 'd', "*id"), msgInsert(2, "9"), msgCommit(90, 95),
		streamStart(42, 0), in(44, msgInsert(1, "3", "A3")), in(42, []byte("Yxxxx")), []byte("O"), in(45, msgInsert(1, "4", "A4")), streamStop,
		xids('A', 42, 45), xids('A', 42, 44), xids('A', 42, 77), // the last of nothing
		streamStart(42, 0), in(42, msgTruncate(1)), streamStop)
	d.expect(t, "batch first last", `90.1 create public.trains/9 after {"id":"9"}`)
	if got := d.confirmed(everything); got != 95 {
		t.Errorf("confirmed %d while a transaction is in progress, want 95", got)
	}
	d.send(streamCommit(42, 100, 108))
	d.expect(t, "batch first last", `90.1 create public.trains/9 after {"id":"9"}`,
		"batch first last",
		`100.1 create public.seats/1 after {"id":"1","no":"A1"}`,
		`100.2 create public.seats/2 after {"id":"2","no":"A2"}`,
		`100.3 truncate public.seats/`)
	if tx := d.batches[1].Tx; tx.ID != 42 || !tx.Time.Equal(txTime) {
		t.Errorf("transaction %+v, want 42 at %s", tx, txTime)
	}
	if got := d.confirmed(everything); got != 108 {
		t.Errorf("confirmed %d after the commit, want 108", got)
	}
	// The server does not describe the table again.
	d.send(msgBegin(110, 51), msgInsert(1, "5", "A5"), msgCommit(110, 115))
}

func TestAStreamedTransactionThatRollsBackNeverArrives(t *testing.T) {
	d := newDecoding(t, whole)
	abort := binary.BigEndian.AppendUint64(xids('A', 42, 42), 100)
	abort = binary.BigEndian.AppendUint64(abort, 0) // version 4 says where and when
	d.send(streamStart(42, 1), in(42, seatsTable), in(42, msgInsert(1, "1", "A1")), streamStop, abort,
		msgBegin(110, 51), seatsTable, msgInsert(1, "5", "A5"), msgCommit(110, 115))
	d.expect(t, "batch first last", `110.1 create public.seats/5 after {"id":"5","no":"A5"}`)
	if n := len(d.decoder.spools.open); n != 0 {
		t.Errorf("%d spools are left", n)
	}
}

func TestAReconnectForgetsTransactionsInProgress(t *testing.T) {
	d := newDecoding(t, 1)
	stream := func() {
		d.send(streamStart(42, 1), in(42, seatsTable), in(42, msgInsert(1, "1", "A1")),
			in(42, msgInsert(1, "2", "A2")), in(42, msgInsert(1, "3", "A3")), streamStop)
	}
	stream()
	for range 2 {
		d.connect()
		stream()
		d.send(streamCommit(42, 100, 108))
	}
	d.expect(t, "batch first", `100.1 create public.seats/1 after {"id":"1","no":"A1"}`,
		"batch", `100.2 create public.seats/2 after {"id":"2","no":"A2"}`,
		"batch last", `100.3 create public.seats/3 after {"id":"3","no":"A3"}`)
}

// A publication's column list can change while a transaction is in progress.
// Its rows are read as it described them; what follows, by the newest words.
func TestTheNewestDescriptionHoldsAfterAStreamedTransaction(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(streamStart(42, 1), in(42, seatsTable), in(42, msgInsert(1, "1", "A1")), streamStop,
		msgBegin(90, 50), msgRelation(1, "seats", 'd', "*id", "no", "price"), msgInsert(1, "2", "A2", "7"), msgCommit(90, 95),
		streamCommit(42, 100, 108),
		msgBegin(110, 51), msgInsert(1, "3", "A3", "8"), msgCommit(110, 115))
	d.expect(t, "batch first last", `90.1 create public.seats/2 after {"id":"2","no":"A2","price":"7"}`,
		"batch first last", `100.1 create public.seats/1 after {"id":"1","no":"A1"}`,
		"batch first last", `110.1 create public.seats/3 after {"id":"3","no":"A3","price":"8"}`)
}

func TestAPreparedTransactionIsDeliveredWhenItCommits(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(prepare('b', 50, 58, 42), seatsTable, msgInsert(1, "1", "A1"), prepare('P', 50, 58, 42),
		streamStart(43, 1), in(43, seatsTable), in(43, msgInsert(1, "2", "A2")), streamStop, prepare('p', 70, 78, 43),
		msgBegin(90, 50), seatsTable, msgInsert(1, "9", "A9"), msgCommit(90, 95))
	d.expect(t, "batch first last", `90.1 create public.seats/9 after {"id":"9","no":"A9"}`)
	if got := d.confirmed(everything); got != 50 {
		t.Errorf("confirmed %d, want 50, where the first PREPARE is", got)
	}
	if got := d.tracker.passed(everything); got != 95 {
		t.Errorf("passed %d, want 95: nothing that has committed is missing", got)
	}
	d.send(rollbackPrepared(58, 99, 42))
	if got := d.confirmed(everything); got != 70 {
		t.Errorf("confirmed %d, want 70, where the second PREPARE is", got)
	}
	d.send(prepare('K', 100, 108, 43))
	d.expect(t, "batch first last", `90.1 create public.seats/9 after {"id":"9","no":"A9"}`,
		"batch first last", `100.1 create public.seats/2 after {"id":"2","no":"A2"}`)
	if got := d.confirmed(listeners.Position{Epoch: 7, Commit: 100}); got != 70 {
		t.Errorf("confirmed %d before the transaction is stored, want 70, where it is sent again from", got)
	}
	if got := d.confirmed(everything); got != 108 {
		t.Errorf("confirmed %d, want 108", got)
	}
}

func TestBadBlocksAreDecodeErrors(t *testing.T) {
	start := streamStart(42, 1)
	for name, messages := range map[string][][]byte{
		"block in a transaction":         {msgBegin(1, 1), start},
		"prepare in a transaction":       {msgBegin(1, 1), prepare('b', 50, 58, 42)},
		"block in a block":               {start, start},
		"begin in a block":               {start, msgBegin(1, 1)},
		"commit in a block":              {start, msgCommit(1, 1)},
		"end of no block":                {streamStop},
		"end of a block with more":       {start, []byte("Ex")},
		"end of a block while preparing": {prepare('b', 50, 58, 42), streamStop},
		"prepare of another":             {prepare('b', 50, 58, 42), prepare('P', 50, 58, 43)},
		"prepare of no prepare":          {prepare('P', 50, 58, 43)},
		"prepare in a block":             {start, prepare('P', 50, 58, 42)},
		"first block twice":              {start, streamStop, start},
		"second block first":             {streamStart(42, 0)},
		"commit of nothing":              {streamCommit(42, 100, 108)},
		"commit prepared of nothing":     {prepare('K', 100, 108, 43)},
		"stream prepare of nothing":      {prepare('p', 100, 108, 43)},
		"row without a transaction's id": {start, []byte("I\x00\x00")},
		"row without a row":              {start, xids('I', 42)},
		"short start":                    {[]byte("S\x00")},
		"short abort":                    {xids('A', 1)},
		"short commit":                   {streamCommit(1, 2, 3)[:20]},
		"short begin prepare":            {prepare('b', 50, 58, 42)[:20]},
		"short prepare":                  {prepare('b', 50, 58, 42), prepare('P', 50, 58, 42)[:20]},
		"short commit prepared":          {prepare('K', 50, 58, 42)[:20]},
		"short rollback prepared":        {rollbackPrepared(50, 58, 42)[:20]},
		"row of an unknown table":        {start, in(42, msgInsert(7, "1")), streamStop, streamCommit(42, 100, 108)},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, whole)
			err := d.try(messages...)
			bad, ok := errors.AsType[*DecodeError](err)
			kind := messages[len(messages)-1][0]
			if name == "row of an unknown table" {
				kind = 'I'
			}
			if !ok || bad.LSN != 0xABC || bad.Message != kind {
				t.Errorf("message() = %v, want a DecodeError of %q with its place", err, kind)
			}
		})
	}
}
