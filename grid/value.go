package grid

import (
	"database/sql"
	"database/sql/driver"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// resolve looks through pointers, interfaces and database values such as
// sql.NullString. It reports false for what is null: a nil of any kind.
func resolve(v reflect.Value) (reflect.Value, bool) {
	for {
		switch v.Kind() { //nolint:exhaustive // the others cannot be nil
		case reflect.Invalid:
			return v, false
		case reflect.Pointer, reflect.Interface:
			if v.IsNil() {
				return v, false
			}
			v = v.Elem()
			continue
		case reflect.Slice, reflect.Map, reflect.Chan, reflect.Func:
			if v.IsNil() {
				return v, false
			}
		case reflect.Struct:
			if _, ok := as[encoding.TextMarshaler](v); ok {
				return v, true
			}
			if _, ok := as[json.Marshaler](v); ok {
				return v, true
			}
			if valuer, ok := as[driver.Valuer](v); ok {
				value, err := valuer.Value()
				return reflect.ValueOf(value), err == nil && value != nil
			}
		}
		return v, true
	}
}

// as returns v as an I, if it or a pointer to it is one.
func as[I any](v reflect.Value) (I, bool) {
	if v.CanAddr() {
		if i, ok := reflect.TypeAssert[I](v.Addr()); ok {
			return i, true
		}
	}
	return reflect.TypeAssert[I](v)
}

// textOf returns the text of a value, nil if it is null: numbers and bools as Go writes
// them, byte arrays in hexadecimal, what implements encoding.TextMarshaler as
// that says, and everything else as JSON.
func textOf(v reflect.Value) []byte {
	v, ok := resolve(v)
	if !ok {
		return nil
	}
	if m, ok := as[encoding.TextMarshaler](v); ok {
		if text, err := m.MarshalText(); err == nil {
			return text
		}
	}
	switch {
	case v.Kind() == reflect.String:
		return []byte(v.String())
	case v.Kind() == reflect.Bool:
		return strconv.AppendBool(nil, v.Bool())
	case v.CanInt():
		return strconv.AppendInt(nil, v.Int(), 10)
	case v.CanUint():
		return strconv.AppendUint(nil, v.Uint(), 10)
	case v.CanFloat():
		return strconv.AppendFloat(nil, v.Float(), 'g', -1, v.Type().Bits())
	case isBytes(v, reflect.Slice):
		return append([]byte{}, v.Bytes()...)
	case isBytes(v, reflect.Array):
		return hexOf(v)
	}
	return appendJSON(nil, v)
}

func isBytes(v reflect.Value, kind reflect.Kind) bool {
	return v.Kind() == kind && v.Type().Elem().Kind() == reflect.Uint8
}

func hexOf(v reflect.Value) []byte {
	raw := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(raw), v)
	return hex.AppendEncode(nil, raw)
}

// appendJSON appends a value as encoding/json writes it, but byte arrays
// as their text, and numbers that JSON does not have ("NaN") as strings.
// What encoding/json cannot write, such as a function, is null.
func appendJSON(dst []byte, v reflect.Value) []byte {
	v, ok := resolve(v)
	if !ok {
		return append(dst, "null"...)
	}
	var text []byte
	var err error
	switch _, knows := as[encoding.TextMarshaler](v); {
	case isBytes(v, reflect.Array) && !knows:
		text, err = json.Marshal(string(hexOf(v)))
	case v.CanAddr():
		text, err = json.Marshal(v.Addr().Interface())
	default:
		text, err = json.Marshal(v.Interface())
	}
	if err != nil && v.CanFloat() {
		text, err = json.Marshal(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	}
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, text...)
}

// assign stores v in d, which can be set. It shares no slice or map with v.
func assign(d, v reflect.Value) error {
	if d.Kind() != reflect.Interface && v.Type().AssignableTo(d.Type()) {
		d.Set(detach(v))
		return nil
	}
	from := v.Type()
	v, ok := resolve(v)
	if s, scans := reflect.TypeAssert[sql.Scanner](d.Addr()); scans {
		if !ok {
			return s.Scan(nil)
		}
		return s.Scan(driverValue(v))
	}
	if !ok {
		switch d.Kind() { //nolint:exhaustive // the others cannot be nil
		case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
			d.SetZero()
			return nil
		}
		return fmt.Errorf("a null %s does not fit a %s: use a pointer or a sql.Null", from, d.Type())
	}
	if v.Type().AssignableTo(d.Type()) {
		d.Set(detach(v))
		return nil
	}
	if d.Kind() == reflect.Pointer {
		fresh := reflect.New(d.Type().Elem())
		if err := assign(fresh.Elem(), v); err != nil {
			return err
		}
		d.Set(fresh)
		return nil
	}
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](d.Addr()); ok {
		return u.UnmarshalText(textOf(v))
	}
	return convert(d, v)
}

// convert stores v in d where the two differ in type but a value of one is a
// value of the other without loss.
func convert(d, v reflect.Value) error {
	t := d.Type()
	fits := true
	switch {
	case d.Kind() == reflect.String:
		d.SetString(string(textOf(v)))
	case d.Kind() == reflect.Bool && v.Kind() == reflect.Bool:
		d.SetBool(v.Bool())
	case d.CanFloat() && v.CanFloat():
		d.SetFloat(v.Float())
		fits = d.Float() == v.Float() || v.Float() != v.Float()
	case d.CanInt() && v.CanInt():
		if fits = !t.OverflowInt(v.Int()); fits {
			d.SetInt(v.Int())
		}
	case d.CanInt() && v.CanUint():
		if fits = v.Uint() <= 1<<63-1 && !t.OverflowInt(int64(v.Uint())); fits {
			d.SetInt(int64(v.Uint()))
		}
	case d.CanUint() && v.CanInt():
		if fits = v.Int() >= 0 && !t.OverflowUint(uint64(v.Int())); fits {
			d.SetUint(uint64(v.Int()))
		}
	case d.CanUint() && v.CanUint():
		if fits = !t.OverflowUint(v.Uint()); fits {
			d.SetUint(v.Uint())
		}
	case d.Kind() == v.Kind() && v.CanConvert(t):
		d.Set(detach(v).Convert(t))
	case isBytes(d, reflect.Slice) && v.Kind() == reflect.String:
		d.SetBytes([]byte(v.String()))
	default:
		return fmt.Errorf("a %s does not fit a %s", v.Type(), t)
	}
	if !fits {
		return fmt.Errorf("the %s %s does not fit a %s", v.Type(), textOf(v), t)
	}
	return nil
}

// detach copies a slice or a map, one level deep. What is further down is
// shared, and as immutable as every value of a region.
func detach(v reflect.Value) reflect.Value {
	switch v.Kind() { //nolint:exhaustive // the others are copied by assignment
	case reflect.Slice:
		if !v.IsNil() {
			fresh := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(fresh, v)
			return fresh
		}
	case reflect.Map:
		if !v.IsNil() {
			fresh := reflect.MakeMapWithSize(v.Type(), v.Len())
			for it := v.MapRange(); it.Next(); {
				fresh.SetMapIndex(it.Key(), it.Value())
			}
			return fresh
		}
	}
	return v
}

// driverValue returns v as one of the types that a sql.Scanner knows.
func driverValue(v reflect.Value) any {
	switch {
	case v.CanInt():
		return v.Int()
	case v.CanUint() && v.Uint() <= 1<<63-1:
		return int64(v.Uint())
	case v.CanFloat():
		return v.Float()
	case v.Kind() == reflect.Bool:
		return v.Bool()
	}
	if driver.IsValue(v.Interface()) {
		return detach(v).Interface()
	}
	return string(textOf(v))
}
