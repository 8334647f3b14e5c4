package pgvalue

import (
	"database/sql"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

var (
	timeType = reflect.TypeFor[time.Time]()
	uuidType = reflect.TypeFor[[16]byte]()
)

// scanReflect fills what has no case of its own in scan, by underlying type.
func (t *Type) scanReflect(text []byte, dst any) error {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer {
		return errNilPointer
	}
	v = v.Elem()
	switch v.Kind() {
	case reflect.String:
		v.SetString(string(text))
		return nil
	case reflect.Bool:
		b, err := t.bool(text)
		if err == nil {
			v.SetBool(b)
		}
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := t.int(text, v.Type().Bits())
		if err == nil {
			v.SetInt(n)
		}
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := t.uint(text, v.Type().Bits())
		if err == nil {
			v.SetUint(n)
		}
		return err
	case reflect.Float32, reflect.Float64:
		f, err := t.float(text, v.Type().Bits())
		if err == nil {
			v.SetFloat(f)
		}
		return err
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		err := t.scan(text, fresh.Interface())
		if err == nil {
			v.Set(fresh)
		}
		return err
	case reflect.Interface:
		if v.NumMethod() > 0 {
			return errNoWay
		}
		value, err := t.value(text)
		if err == nil {
			v.Set(reflect.ValueOf(value))
		}
		return err
	case reflect.Slice:
		return t.scanSliceReflect(text, v)
	case reflect.Array:
		if v.Type().ConvertibleTo(uuidType) {
			return convert(v, text, t.uuid)
		}
	case reflect.Struct:
		if v.Type().ConvertibleTo(timeType) {
			return convert(v, text, t.time)
		}
		if t.kind == kindComposite {
			return t.scanStruct(text, v)
		}
	case reflect.Map:
		return t.scanMapReflect(text, v)
	default:
	}
	return errNoWay
}

// convert stores a T in a variable of a type with the same underlying type.
func convert[T any](v reflect.Value, text []byte, read func([]byte) (T, error)) error {
	x, err := read(text)
	if err == nil {
		v.Set(reflect.ValueOf(x).Convert(v.Type()))
	}
	return err
}

func (t *Type) scanSliceReflect(text []byte, v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b, err := t.bytes(text)
		if err == nil {
			v.SetBytes(b)
		}
		return err
	}
	s := reflect.MakeSlice(v.Type(), 0, 0)
	err := t.each(text, func(i, n int, it element) error {
		if i == 0 {
			s = reflect.MakeSlice(v.Type(), n, n)
		}
		if it.nested && !nests(v.Type().Elem()) {
			return errDimensions
		}
		return t.scanElement(it, i, s.Index(i).Addr().Interface())
	})
	if err == nil {
		v.Set(s)
	}
	return err
}

// nests reports whether a variable of type e can hold an array.
func nests(e reflect.Type) bool {
	switch e.Kind() {
	case reflect.Slice:
		return e.Elem().Kind() != reflect.Uint8
	case reflect.Interface:
		return true
	case reflect.Pointer:
		return nests(e.Elem())
	default:
		return false
	}
}

// scanJSON fills variables from a json or jsonb document. Strings and bytes take
// the document as it is, as they do for every type.
func (t *Type) scanJSON(text []byte, dst any) error {
	if s, ok := dst.(sql.Scanner); ok {
		return t.scanScanner(text, s)
	}
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer {
		return errNilPointer
	}
	v = v.Elem()
	if !decodesJSON(dst) {
		switch v.Kind() {
		case reflect.String, reflect.Pointer, reflect.Interface:
			return t.scanReflect(text, dst)
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				return t.scanReflect(text, dst)
			}
		default:
		}
	}
	// json.Unmarshal would add to a map and overwrite a slice that is there.
	fresh := reflect.New(v.Type())
	if err := json.Unmarshal(text, fresh.Interface()); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	v.Set(fresh.Elem())
	return nil
}

// decodesJSON reports whether json.Unmarshal leaves dst to its own methods.
func decodesJSON(dst any) bool {
	switch dst.(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return false
}
