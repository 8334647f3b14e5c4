package sinks

import (
	"bytes"
	"database/sql"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var (
	errScanTarget = errors.New("want a non-nil pointer")
	errScanNull   = errors.New("the column is NULL: use a pointer or a sql.Null")
	timeType      = reflect.TypeFor[time.Time]()
)

// scanJSON stores a JSON value into what dst points to. What fits where is said
// at [Decoder]. region says that []byte was written by package
// encoding/json, as base64.
func scanJSON(v []byte, dst any, region bool) error {
	target := reflect.ValueOf(dst)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return errScanTarget
	}
	if v == nil {
		return nil
	}
	if isNull(v) {
		return scanNull(dst, target.Elem())
	}
	// The common types first: they cost no reflection.
	switch d := dst.(type) {
	case *string:
		*d = string(jsonText(v))
		return nil
	case *int:
		n, err := jsonInt(v, strconv.IntSize)
		if err == nil {
			*d = int(n)
		}
		return err
	case *int64:
		n, err := jsonInt(v, 64)
		if err == nil {
			*d = n
		}
		return err
	case *float64:
		f, err := strconv.ParseFloat(string(jsonText(v)), 64)
		if err == nil {
			*d = f
		}
		return err
	case *bool:
		b, err := jsonBool(v)
		if err == nil {
			*d = b
		}
		return err
	case *[]byte:
		*d = jsonBytes(v, region)
		return nil
	case *json.RawMessage:
		*d = bytes.Clone(v)
		return nil
	case *time.Time:
		t, err := parseTime(jsonText(v))
		if err == nil {
			*d = t
		}
		return err
	case *any:
		a, err := jsonAny(v)
		if err == nil {
			*d = a
		}
		return err
	case sql.Scanner:
		return scanScanner(v, d)
	case json.Unmarshaler:
		target.Elem().SetZero()
		return d.UnmarshalJSON(v)
	case encoding.TextUnmarshaler:
		target.Elem().SetZero()
		return d.UnmarshalText(jsonText(v))
	}
	return scanKind(v, target.Elem(), region)
}

func scanNull(dst any, target reflect.Value) error {
	if s, ok := dst.(sql.Scanner); ok {
		return s.Scan(nil)
	}
	switch target.Kind() { //nolint:exhaustive // the others cannot be nil
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		target.SetZero()
		return nil
	}
	return errScanNull
}

// scanKind fills a variable by its underlying type.
func scanKind(v []byte, target reflect.Value, region bool) error {
	t := target.Type()
	switch {
	case t.Kind() == reflect.String:
		target.SetString(string(jsonText(v)))
		return nil
	case t.Kind() == reflect.Bool:
		b, err := jsonBool(v)
		if err == nil {
			target.SetBool(b)
		}
		return err
	case target.CanInt():
		n, err := jsonInt(v, t.Bits())
		if err == nil {
			target.SetInt(n)
		}
		return err
	case target.CanUint():
		n, err := strconv.ParseUint(wholeNumber(jsonText(v)), 10, t.Bits())
		if err == nil {
			target.SetUint(n)
		}
		return err
	case target.CanFloat():
		f, err := strconv.ParseFloat(string(jsonText(v)), t.Bits())
		if err == nil {
			target.SetFloat(f)
		}
		return err
	case t.Kind() == reflect.Pointer:
		fresh := reflect.New(t.Elem())
		if err := scanJSON(v, fresh.Interface(), region); err != nil {
			return err
		}
		target.Set(fresh)
		return nil
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		target.SetBytes(jsonBytes(v, region))
		return nil
	case t.Kind() == reflect.Array && t.Elem().Kind() == reflect.Uint8 && v[0] == '"':
		return scanByteArray(v, target)
	case t.Kind() == reflect.Struct && t.ConvertibleTo(timeType) && v[0] == '"':
		at, err := parseTime(jsonText(v))
		if err == nil {
			target.Set(reflect.ValueOf(at).Convert(t))
		}
		return err
	}
	// json.Unmarshal would add to a map and write into a slice that is there.
	fresh := reflect.New(t)
	if err := json.Unmarshal(v, fresh.Interface()); err != nil {
		return err
	}
	target.Set(fresh.Elem())
	return nil
}

// scanByteArray reads a UUID, or the hexadecimal digits of any other array.
func scanByteArray(v []byte, target reflect.Value) error {
	digits := bytes.TrimPrefix(bytes.ReplaceAll(jsonText(v), []byte("-"), nil), []byte(`\x`))
	raw := make([]byte, hex.DecodedLen(len(digits)))
	if n, err := hex.Decode(raw, digits); err != nil || n != target.Len() {
		return fmt.Errorf("%s is not %d bytes in hexadecimal", v, target.Len())
	}
	reflect.Copy(target, reflect.ValueOf(raw))
	return nil
}

// scanScanner offers the text, as a reader of Postgres does, and then what else
// it may be.
func scanScanner(v []byte, dst sql.Scanner) error {
	text := jsonText(v)
	if raw, ok := hexBytes(text); ok && v[0] == '"' {
		return dst.Scan(raw)
	}
	err := dst.Scan(string(text))
	if err == nil {
		return nil
	}
	if t, failed := parseTime(text); failed == nil && v[0] == '"' && dst.Scan(t) == nil {
		return nil
	}
	if a, failed := jsonAny(v); failed == nil && dst.Scan(a) == nil {
		return nil
	}
	return err
}

func jsonInt(v []byte, bits int) (int64, error) {
	return strconv.ParseInt(wholeNumber(jsonText(v)), 10, bits)
}

// wholeNumber writes 7.00 and 7e2 as 7 and 700; what has a fraction stays as it
// is.
func wholeNumber(text []byte) string {
	s := string(text)
	if len(s) > 40 || !strings.ContainsAny(s, ".eE") {
		return s
	}
	var r big.Rat
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e > 30 || e < -30 {
			return s
		}
	}
	if _, ok := r.SetString(s); ok && r.IsInt() {
		return r.Num().String()
	}
	return s
}

func jsonBool(v []byte) (bool, error) {
	switch string(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is no boolean", shortJSON(v))
}

// jsonBytes returns the bytes of a bytea, those of a region's []byte, and the
// text of everything else.
func jsonBytes(v []byte, region bool) []byte {
	text := jsonText(v)
	if v[0] != '"' {
		return bytes.Clone(text)
	}
	if raw, ok := hexBytes(text); ok {
		return raw
	}
	if region {
		raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		if n, err := base64.StdEncoding.Strict().Decode(raw, text); err == nil {
			return raw[:n]
		}
	}
	return bytes.Clone(text)
}

// hexBytes reads a bytea as Postgres writes it.
func hexBytes(text []byte) ([]byte, bool) {
	digits, ok := bytes.CutPrefix(text, []byte(`\x`))
	if !ok {
		return nil, false
	}
	raw := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(raw, digits); err != nil {
		return nil, false
	}
	return raw, true
}

// jsonAny returns a string, int64, [json.Number], bool, []any or
// map[string]any.
func jsonAny(v []byte) (any, error) {
	if v[0] == '"' {
		s, err := unquoteJSON(v)
		return string(s), err
	}
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, nil
	}
	d := json.NewDecoder(bytes.NewReader(v))
	d.UseNumber()
	var a any
	err := d.Decode(&a)
	return a, err
}

// parseTime reads RFC 3339, and what to_jsonb prints: a date, or a timestamp
// without an offset, either with " BC". Without an offset it is UTC.
func parseTime(text []byte) (time.Time, error) {
	s, bc := strings.CutSuffix(string(text), " BC")
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", time.DateOnly} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if _, offset := t.Zone(); offset == 0 {
			t = t.UTC() // and not the zone of this machine, should that be at 0
		}
		if bc {
			// 1 BC is the year 0 of ISO 8601 and of package time. Not AddDate,
			// which would make a 29 February of one the 1 March of the other.
			t = time.Date(1-t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no date or time that a time.Time holds; use a string", shortJSON(text))
}

func shortJSON(v []byte) []byte {
	const most = 60
	return v[:min(len(v), most)]
}
