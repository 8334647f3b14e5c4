package sinks

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// EscapeHeader percent-encodes an attribute's value as the CloudEvents
// bindings for HTTP and NATS ask for: space, double quote, percent and all
// that is not printable ASCII. Other bindings (Kafka, AMQP) take the value as
// it is.
func EscapeHeader(s string) string {
	for i := range len(s) {
		if headerEscaped(s[i]) {
			return string(appendHeader(nil, s))
		}
	}
	return s
}

func headerEscaped(b byte) bool { return b <= ' ' || b >= 0x7f || b == '"' || b == '%' }

func appendHeader(dst []byte, s string) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := range len(s) {
		b := s[i]
		if headerEscaped(b) {
			dst = append(dst, '%', hexDigits[b>>4], hexDigits[b&0xf])
			continue
		}
		dst = append(dst, b)
	}
	return dst
}

// UnescapeHeader is the inverse of [EscapeHeader]. As the bindings ask for, it
// takes off double quotes around the value, decodes what did not need
// encoding, and rejects what is not UTF-8 afterwards.
func UnescapeHeader(s string) (string, error) {
	quoted := len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"'
	if !quoted && strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	in := s
	if quoted {
		in = unquote(s[1 : len(s)-1])
	}
	out, err := unescape(in)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(out) {
		return "", fmt.Errorf("sinks: header %q is not UTF-8 when decoded", s)
	}
	return out, nil
}

// unquote takes the backslashes off the inside of a quoted string (RFC 7230
// section 3.2.6).
func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// unescape decodes one round of %XX.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("sinks: %q ends within an escape", s)
		}
		hi, ok1 := unhex(s[i+1])
		lo, ok2 := unhex(s[i+2])
		if !ok1 || !ok2 {
			return "", fmt.Errorf("sinks: %q has a bad escape at byte %d", s, i)
		}
		out = append(out, hi<<4|lo)
		i += 2
	}
	return string(out), nil
}
