package pgvalue

import (
	"fmt"
	"reflect"

	"github.com/rowcall/rowcall/listeners"
)

// A compositeRow is a composite value as a record, so that it is scanned into a
// struct by the same rules.
type compositeRow struct {
	typ    *Type
	values []element
}

func (r *compositeRow) Schema() *listeners.Schema { return r.typ.schema }

func (r *compositeRow) State(i int) listeners.State {
	if r.values[i].null {
		return listeners.Null
	}
	return listeners.Present
}

func (r *compositeRow) Text(i int) []byte {
	if r.values[i].null {
		return nil
	}
	return r.values[i].text
}

func (r *compositeRow) AppendJSON(dst []byte, i int) []byte {
	if r.values[i].null {
		return append(dst, "null"...)
	}
	return r.typ.fields[i].typ.AppendJSON(dst, r.values[i].text)
}

func (r *compositeRow) Scan(i int, dst any) error {
	if r.values[i].null {
		return r.typ.fields[i].typ.ScanNull(dst)
	}
	return r.typ.fields[i].typ.Scan(r.values[i].text, dst)
}

func (t *Type) scanStruct(text []byte, v reflect.Value) error {
	values, err := t.split(text)
	if err != nil {
		return err
	}
	fresh := reflect.New(v.Type())
	if err := listeners.NewRecord(&compositeRow{typ: t, values: values}).Scan(fresh.Interface()); err != nil {
		return err
	}
	v.Set(fresh.Elem())
	return nil
}

func scanMap[M any](t *Type, text []byte) (M, error) {
	var m M
	err := t.scanMapReflect(text, reflect.ValueOf(&m).Elem())
	return m, err
}

// scanMapReflect stores a new map in v.
func (t *Type) scanMapReflect(text []byte, v reflect.Value) error {
	typ := v.Type()
	if typ.Key().Kind() != reflect.String {
		return errNoWay
	}
	m := reflect.MakeMap(typ)
	err := t.eachField(text, func(name string, f *Type, it element) error {
		value := reflect.New(typ.Elem())
		var err error
		if it.null {
			err = f.ScanNull(value.Interface())
		} else {
			err = f.Scan(it.text, value.Interface())
		}
		if err != nil {
			return fmt.Errorf("field %q: %w", name, err)
		}
		m.SetMapIndex(reflect.ValueOf(name).Convert(typ.Key()), value.Elem())
		return nil
	})
	if err == nil {
		v.Set(m)
	}
	return err
}

// eachField calls f for every field of a composite and every pair of an hstore;
// escapes are already removed.
func (t *Type) eachField(text []byte, f func(name string, t *Type, it element) error) error {
	switch t.kind {
	case kindComposite:
		values, err := t.split(text)
		if err != nil {
			return err
		}
		for i, it := range values {
			if err := f(t.schema.Columns[i].Name, t.fields[i].typ, it); err != nil {
				return err
			}
		}
		return nil
	case kindHstore:
		for len(text) > 0 {
			key, value, rest, ok := pair(text)
			if !ok {
				return errHstore
			}
			value.text = unescape(nil, value.text)
			if err := f(string(unescape(nil, key.text)), plainText, value); err != nil {
				return err
			}
			text = rest
		}
		return nil
	default:
		return errNoWay
	}
}
