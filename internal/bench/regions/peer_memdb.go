package main

import (
	"encoding/binary"

	"github.com/hashicorp/go-memdb"
)

type memdbStore struct{ db *memdb.MemDB }

type memdbEntry struct {
	key string
	val seat
}

// A memdbKey finds entries by their keys.
type memdbKey struct{}

func (memdbKey) FromObject(obj any) (bool, []byte, error) {
	return true, append([]byte(obj.(*memdbEntry).key), 0), nil
}

func (memdbKey) FromArgs(args ...any) ([]byte, error) {
	return append([]byte(args[0].(string)), 0), nil
}

// A memdbCoach finds entries by their coaches. To memdb its values are not
// unique, so it adds the keys itself.
type memdbCoach struct{}

func (memdbCoach) FromObject(obj any) (bool, []byte, error) {
	return true, binary.BigEndian.AppendUint64(make([]byte, 0, 32), uint64(obj.(*memdbEntry).val.Coach)), nil
}

func (memdbCoach) FromArgs(args ...any) ([]byte, error) {
	return binary.BigEndian.AppendUint64(nil, uint64(args[0].(int))), nil
}

func openMemdb(indexed bool) (store, error) {
	indexes := map[string]*memdb.IndexSchema{"id": {Name: "id", Unique: true, Indexer: memdbKey{}}}
	if indexed {
		indexes["coach"] = &memdb.IndexSchema{Name: "coach", Indexer: memdbCoach{}}
	}
	db, err := memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{"seats": {Name: "seats", Indexes: indexes}}})
	return &memdbStore{db}, err
}

func (s *memdbStore) put(key string, v seat) error {
	txn := s.db.Txn(true)
	defer txn.Abort()
	if err := txn.Insert("seats", &memdbEntry{key, v}); err != nil {
		return err
	}
	txn.Commit()
	return nil
}

func (s *memdbStore) putAll(keys []string, v func(string) seat) error {
	txn := s.db.Txn(true)
	defer txn.Abort()
	for _, k := range keys {
		if err := txn.Insert("seats", &memdbEntry{k, v(k)}); err != nil {
			return err
		}
	}
	txn.Commit()
	return nil
}

func (s *memdbStore) get(key string) (seat, bool) {
	obj, err := s.db.Txn(false).First("seats", "id", key)
	if err != nil || obj == nil {
		return seat{}, false
	}
	return obj.(*memdbEntry).val, true
}

func (s *memdbStore) coach(n int) int {
	it, err := s.db.Txn(false).Get("seats", "coach", n)
	if err != nil {
		return 0
	}
	found := 0
	for obj := it.Next(); obj != nil; obj = it.Next() {
		if obj.(*memdbEntry).val.Coach == n {
			found++
		}
	}
	return found
}

func (s *memdbStore) scan(from string, n int) int {
	it, err := s.db.Txn(false).LowerBound("seats", "id", from)
	if err != nil {
		return 0
	}
	found := 0
	for obj := it.Next(); obj != nil && found < n; obj = it.Next() {
		if obj.(*memdbEntry).val.Class != "" {
			found++
		}
	}
	return found
}

func (s *memdbStore) close() error { return nil }
