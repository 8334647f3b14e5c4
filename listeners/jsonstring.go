package listeners

import "unicode/utf8"

// plainJSON marks the bytes that stand for themselves in a JSON string.
var plainJSON = func() (set [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		set[c] = c != '"' && c != '\\'
	}
	return set
}()

// AppendJSONString appends s to dst as a JSON string (RFC 8259, section 7), for
// rows that write their JSON themselves. Valid UTF-8 stays as it is, each invalid
// byte becomes U+FFFD, and control characters are written as Postgres does.
func AppendJSONString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	run := 0 // start of the bytes that are still to be copied
	for i := 0; i < len(s); {
		c := s[i]
		if plainJSON[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			// The conversion is of at most four bytes and stays on the stack.
			r, size := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[run:i]...)
				dst = utf8.AppendRune(dst, utf8.RuneError)
				run = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[run:i]...)
		dst = appendEscape(dst, c)
		i++
		run = i
	}
	dst = append(dst, s[run:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	const hexDigits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
