package pgwrite

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/grid"
)

// A TxTable is a table within a transaction, see [In]. It belongs to the
// goroutine that fn of [Writer.Do] is called on.
type TxTable[K comparable, V any] struct {
	t  *Table[K, V]
	tx *Tx
}

// In returns a table to write to within a transaction of its writer.
func In[K comparable, V any](tx *Tx, t *Table[K, V]) TxTable[K, V] { return TxTable[K, V]{t, tx} }

// Put stores a row, whether the key exists or not. A write that fails has
// undone the whole transaction, whatever fn returns.
func (x TxTable[K, V]) Put(k K, v V) error {
	return x.wrap("put", k, x.exec(x.t.target.put, x.t.target.arguments(x.t.target.stored, reflect.ValueOf(&k).Elem(), reflect.ValueOf(&v).Elem()), k, false, errSuppressed))
}

// Insert stores a new row; see [Table.Insert] and [TxTable.Put].
func (x TxTable[K, V]) Insert(k K, v V) error {
	return x.wrap("insert", k, x.exec(x.t.target.insert, x.t.target.arguments(x.t.target.stored, reflect.ValueOf(&k).Elem(), reflect.ValueOf(&v).Elem()), k, true, errSuppressed))
}

// Update stores what fn makes of the row, which stays locked until the end of
// the transaction. If fn fails or there is no row, the transaction goes on.
func (x TxTable[K, V]) Update(k K, fn func(V) (V, error)) error {
	return x.wrap("update", k, x.update(k, fn))
}

func (x TxTable[K, V]) update(k K, fn func(V) (V, error)) error {
	if fn == nil {
		return errors.New("the function is nil")
	}
	if err := x.usable(); err != nil {
		return err
	}
	t, key := x.t.target, reflect.ValueOf(&k).Elem()
	var v V
	var into []any
	for _, i := range t.loaded {
		into = append(into, of(reflect.ValueOf(&v).Elem(), t.columns[i].inVal).Addr().Interface())
	}
	if len(into) == 0 {
		into = make([]any, len(t.keys)) // nil: not scanned
	}
	// As text, which a string takes from every type, as a mirror's does.
	args := append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, t.arguments(t.keys, key, reflect.Value{})...)
	err := x.tx.tx.QueryRow(x.tx.ctx, t.read, args...).Scan(into...)
	if errors.Is(err, pgx.ErrNoRows) {
		return grid.ErrNotFound
	}
	if err != nil {
		x.tx.failed = fmt.Errorf("read the row: %w", err)
		return x.tx.failed
	}
	if v, err = fn(v); err != nil {
		return err
	}
	args = append(t.arguments(t.changed, key, reflect.ValueOf(&v).Elem()), t.arguments(t.keys, key, reflect.Value{})...)
	return x.exec(t.update, args, k, false, errSuppressed)
}

// Delete removes a row and reports whether it existed; see [TxTable.Put].
func (x TxTable[K, V]) Delete(k K) (existed bool, err error) {
	t := x.t.target
	err = x.exec(t.remove, t.arguments(t.keys, reflect.ValueOf(&k).Elem(), reflect.Value{}), k, false, grid.ErrNotFound)
	if errors.Is(err, grid.ErrNotFound) {
		return false, nil
	}
	return err == nil, x.wrap("delete", k, err)
}

// exec runs a statement that returns the transaction's number for the row that
// it has changed; without a row, the error is none.
func (x TxTable[K, V]) exec(sql string, args []any, k K, insert bool, none error) error {
	if err := x.usable(); err != nil {
		return err
	}
	var id string
	err := x.tx.tx.QueryRow(x.tx.ctx, sql, args...).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return none
	}
	if err == nil {
		return x.tx.wrote(x.t.watch, x.t.target, id)
	}
	x.tx.failed = x.t.target.explain(err, k, insert)
	return x.tx.failed
}

func (x TxTable[K, V]) usable() error {
	switch {
	case x.t.w != x.tx.w:
		return errors.New("the table is bound to another writer")
	case x.tx.over:
		return grid.ErrTxOver
	case x.tx.failed != nil:
		return fmt.Errorf("a write before has undone the transaction: %w", x.tx.failed)
	}
	return x.t.r.WaitReady(x.tx.ctx)
}

func (x TxTable[K, V]) wrap(what string, k K, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %v in %s: %w", what, k, x.t.target.name, err)
}
