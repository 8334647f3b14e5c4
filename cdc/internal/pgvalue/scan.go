package pgvalue

import (
	"database/sql"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// Scan stores text in the variable that dst points to. What fits where:
//
//   - string: the text of any type.
//   - []byte: the bytes of bytea, the text of any other type.
//   - integers: smallint, integer, bigint, oid, numeric without a fraction, and
//     text that is a number; out of range is an error. Floats: the same and
//     real, double precision, NaN and the infinities.
//   - bool: boolean.
//   - [time.Time], always in UTC: date, timestamp, timestamptz, years before
//     Christ included. Infinity is an error.
//   - [time.Duration]: an interval without months and years. A day is 24 hours.
//   - [16]byte: uuid.
//   - [json.RawMessage]: the JSON of any type.
//   - []T: an array of one dimension whose elements fit T; [][]T and deeper for
//     more dimensions.
//   - *T: what fits T, newly allocated.
//   - [sql.Scanner]: gets a string, for bytea a []byte. If it refuses the string
//     of a finite date, timestamp or timestamptz it gets a time.Time.
//   - [encoding.TextUnmarshaler]: is set to zero, then gets the text.
//   - structs: a composite, by the rules of [listeners.Record.Scan], into a zero
//     value.
//   - map[string]T: a composite whose fields fit T, or hstore whose strings do.
//   - any other type for json and jsonb: by [json.Unmarshal] into a zero value.
//   - any: int64 for integers and oid, string for numeric, float64 for real and
//     double precision, bool, []byte, time.Time (string if infinite),
//     json.RawMessage, []any for arrays, map[string]any for composites and
//     hstore, and string for all the rest.
//
// A domain is scanned as the type that it is over. A type with one of these as its underlying type is filled alike. If several
// rules apply, a Scanner comes before all other interfaces; for json and jsonb,
// json.Unmarshal decides about UnmarshalJSON and UnmarshalText.
//
// A failure is a [*ScanError] and may leave dst partly written. Memory of text
// or of dst's old value is never used again.
func (t *Type) Scan(text []byte, dst any) error {
	if err := t.scan(text, dst); err != nil {
		return t.scanError(text, dst, err)
	}
	return nil
}

// ScanNull stores SQL NULL in the variable that dst points to: nil in a pointer,
// slice, map or interface; Scan(nil) for a [sql.Scanner]. Other variables have no
// place for NULL, which is a [*ScanError].
func (t *Type) ScanNull(dst any) error {
	ok, err := storeNull(dst)
	if err == nil && !ok {
		err = fmt.Errorf("column is NULL, use *%s or sql.Null[%[1]s]", goType(dst))
	}
	if err != nil {
		return &ScanError{TypeName: t.label(), GoType: goType(dst), Err: err, null: true}
	}
	return nil
}

// storeNull reports whether dst has a place for NULL.
func storeNull(dst any) (bool, error) {
	if isNil(dst) {
		return false, errNilPointer
	}
	if s, ok := dst.(sql.Scanner); ok {
		return true, s.Scan(nil)
	}
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer {
		return false, errNilPointer
	}
	v = v.Elem()
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		v.SetZero()
		return true, nil
	default:
		return false, nil
	}
}

func isNil(dst any) bool {
	if dst == nil {
		return true
	}
	v := reflect.ValueOf(dst)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// scan has the common types first: they cost no reflection.
func (t *Type) scan(text []byte, dst any) error {
	if isNil(dst) {
		return errNilPointer
	}
	switch d := dst.(type) {
	case *string:
		*d = string(text)
		return nil
	case *[]byte:
		return set(d, text, t.bytes)
	case *json.RawMessage:
		*d = t.AppendJSON(nil, text)
		return nil
	case *any:
		return set(d, text, t.value)
	}
	if t.kind == kindJSON {
		return t.scanJSON(text, dst)
	}
	switch d := dst.(type) {
	case *bool:
		return set(d, text, t.bool)
	case *int:
		return scanInt(t, text, d, strconv.IntSize)
	case *int16:
		return scanInt(t, text, d, 16)
	case *int32:
		return scanInt(t, text, d, 32)
	case *int64:
		return scanInt(t, text, d, 64)
	case *float64:
		return set(d, text, t.float64)
	case *time.Time:
		return set(d, text, t.time)
	case *time.Duration:
		return set(d, text, t.duration)
	case *[16]byte:
		return set(d, text, t.uuid)
	case **string:
		return scanPointer(t, text, d)
	case **bool:
		return scanPointer(t, text, d)
	case **int:
		return scanPointer(t, text, d)
	case **int32:
		return scanPointer(t, text, d)
	case **int64:
		return scanPointer(t, text, d)
	case **float64:
		return scanPointer(t, text, d)
	case **time.Time:
		return scanPointer(t, text, d)
	case *[]string:
		return scanSlice(t, text, d)
	case *[]int:
		return scanSlice(t, text, d)
	case *[]int32:
		return scanSlice(t, text, d)
	case *[]int64:
		return scanSlice(t, text, d)
	case *[]float64:
		return scanSlice(t, text, d)
	case sql.Scanner:
		return t.scanScanner(text, d)
	case encoding.TextUnmarshaler:
		if v := reflect.ValueOf(dst); v.Kind() == reflect.Pointer {
			v.Elem().SetZero()
		}
		return d.UnmarshalText(text)
	}
	return t.scanReflect(text, dst)
}

// set leaves dst alone if read fails.
func set[T any](dst *T, text []byte, read func([]byte) (T, error)) error {
	v, err := read(text)
	if err == nil {
		*dst = v
	}
	return err
}

func scanInt[T int | int16 | int32 | int64](t *Type, text []byte, dst *T, bits int) error {
	v, err := t.int(text, bits)
	if err == nil {
		*dst = T(v)
	}
	return err
}

func scanPointer[T any](t *Type, text []byte, dst **T) error {
	v := new(T)
	if err := t.scan(text, v); err != nil {
		return err
	}
	*dst = v
	return nil
}

func (t *Type) scanScanner(text []byte, dst sql.Scanner) error {
	if t.kind == kindBytea {
		b, err := t.bytes(text)
		if err != nil {
			return err
		}
		return dst.Scan(b)
	}
	err := dst.Scan(string(text))
	if err == nil {
		return nil
	}
	// sql.NullTime and sql.Null[time.Time] know no text.
	switch t.kind {
	case kindDate, kindTimestamp, kindTimestamptz:
		if v, failed := parseTime(text); failed == nil && dst.Scan(v) == nil {
			return nil
		}
	default:
	}
	return err
}
