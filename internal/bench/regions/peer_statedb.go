package main

import (
	"context"

	"github.com/cilium/statedb"
	"github.com/cilium/statedb/index"
)

type statedbStore struct {
	db    *statedb.DB
	table statedb.RWTable[*statedbEntry]
	key   statedb.Index[*statedbEntry, string]
	byNo  statedb.Index[*statedbEntry, int]
}

type statedbEntry struct {
	key string
	val seat
}

// TableHeader implements [statedb.TableWritable].
func (*statedbEntry) TableHeader() []string { return []string{"key"} }

// TableRow implements [statedb.TableWritable].
func (e *statedbEntry) TableRow() []string { return []string{e.key} }

func openStatedb(indexed bool) (store, error) { return newStatedb(indexed) }

func newStatedb(indexed bool) (*statedbStore, error) {
	s := &statedbStore{
		db: statedb.New(statedb.WithMetrics(new(statedb.NopMetrics))),
		key: statedb.Index[*statedbEntry, string]{
			Name: "key", Unique: true, FromKey: index.String,
			FromObject: func(e *statedbEntry) index.KeySet { return index.NewKeySet(index.String(e.key)) },
		},
		byNo: statedb.Index[*statedbEntry, int]{
			Name: "coach", FromKey: index.Int,
			FromObject: func(e *statedbEntry) index.KeySet { return index.NewKeySet(index.Int(e.val.Coach)) },
		},
	}
	var more []statedb.Indexer[*statedbEntry]
	if indexed {
		more = append(more, s.byNo)
	}
	var err error
	if s.table, err = statedb.NewTable(s.db, "seats", statedb.Indexer[*statedbEntry](s.key), more...); err != nil {
		return nil, err
	}
	return s, s.db.Start()
}

func (s *statedbStore) put(key string, v seat) error {
	txn := s.db.WriteTxn(s.table)
	if _, _, err := s.table.Insert(txn, &statedbEntry{key, v}); err != nil {
		txn.Abort()
		return err
	}
	txn.Commit()
	return nil
}

func (s *statedbStore) putAll(keys []string, v func(string) seat) error {
	txn := s.db.WriteTxn(s.table)
	for _, k := range keys {
		if _, _, err := s.table.Insert(txn, &statedbEntry{k, v(k)}); err != nil {
			txn.Abort()
			return err
		}
	}
	txn.Commit()
	return nil
}

func (s *statedbStore) get(key string) (seat, bool) {
	e, _, ok := s.table.Get(s.db.ReadTxn(), s.key.Query(key))
	if !ok {
		return seat{}, false
	}
	return e.val, true
}

func (s *statedbStore) coach(n int) int {
	found := 0
	for e := range s.table.List(s.db.ReadTxn(), s.byNo.Query(n)) {
		if e.val.Coach == n {
			found++
		}
	}
	return found
}

func (s *statedbStore) scan(from string, n int) int {
	found := 0
	for e := range s.table.LowerBound(s.db.ReadTxn(), s.key.Query(from)) {
		if e.val.Class != "" {
			found++
		}
		if found == n {
			break
		}
	}
	return found
}

// listen tells fn of every value that it finds changed, until ctx ends.
func (s *statedbStore) listen(ctx context.Context, fn func(seat)) error {
	txn := s.db.WriteTxn(s.table)
	changes, err := s.table.Changes(txn)
	txn.Commit()
	if err != nil {
		return err
	}
	for {
		found, more := changes.Next(s.db.ReadTxn())
		for c := range found {
			fn(c.Object.val)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *statedbStore) close() error { return s.db.Stop() }
