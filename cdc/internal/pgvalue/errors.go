package pgvalue

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// maxErrorText bounds the part of a value that an error quotes, in bytes.
const maxErrorText = 64

var (
	errNilPointer = errors.New("destination is not a non-nil pointer")
	errNoWay      = errors.New("no conversion between these types")
	errBool       = errors.New("not a boolean")
	errBytea      = errors.New("not bytea in hex format")
	errUUID       = errors.New("not a UUID")
	errDimensions = errors.New("array has more dimensions than the slice")
	errFraction   = errors.New("value has a fraction")
)

// ScanError says that a value does not fit a Go variable. It quotes data of the
// row.
type ScanError struct {
	TypeName string // as format_type prints it, or "type with OID n"
	Text     string // at most the first 64 bytes of the value; empty for NULL
	GoType   string // of the variable, such as "int16"
	Err      error

	null bool
}

// Error says which value of which type does not fit which Go type, and why.
func (e *ScanError) Error() string {
	if e.null {
		return fmt.Sprintf("scan %s NULL into %s: %v", e.TypeName, e.GoType, e.Err)
	}
	return fmt.Sprintf("scan %s %q into %s: %v", e.TypeName, e.Text, e.GoType, e.Err)
}

// Unwrap returns the cause.
func (e *ScanError) Unwrap() error { return e.Err }

func (t *Type) scanError(text []byte, dst any, err error) error {
	// Only the cause of a strconv error: the rest repeats the whole value.
	if num, ok := errors.AsType[*strconv.NumError](err); ok {
		err = num.Err
	}
	return &ScanError{TypeName: t.label(), Text: truncate(text), GoType: goType(dst), Err: err}
}

func (t *Type) label() string {
	if t.name == "" {
		return fmt.Sprintf("type with OID %d", t.oid)
	}
	return t.name
}

// goType names the type that dst points to.
func goType(dst any) string {
	name := fmt.Sprintf("%T", dst)
	if name[0] == '*' {
		return name[1:]
	}
	return name
}

// truncate cuts between characters where text is UTF-8.
func truncate(text []byte) string {
	if len(text) <= maxErrorText {
		return string(text)
	}
	n := maxErrorText
	for n > maxErrorText-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	return string(text[:n])
}
