package sinks

import (
	"fmt"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// EscapeToken makes a name fit one token of an address. ASCII letters, digits
// and "_" stay; every other byte, "-" among them, becomes "-" and two
// lower-case hexadecimal digits, so different names give different tokens.
// Only the empty name gives an empty token; who takes names from a user
// rejects it there.
func EscapeToken(name string) string {
	for i := range len(name) {
		if !plain(name[i]) {
			return string(appendToken(nil, name))
		}
	}
	return name
}

func plain(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

func appendToken(dst []byte, name string) []byte {
	const hexDigits = "0123456789abcdef"
	for i := range len(name) {
		b := name[i]
		if plain(b) {
			dst = append(dst, b)
			continue
		}
		dst = append(dst, '-', hexDigits[b>>4], hexDigits[b&0xf])
	}
	return dst
}

// UnescapeToken is the inverse of [EscapeToken]. It accepts nothing else.
func UnescapeToken(token string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '-' {
			b.WriteByte(token[i])
			continue
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("sinks: token %q ends within an escape", token)
		}
		hi, ok1 := unhex(token[i+1])
		lo, ok2 := unhex(token[i+2])
		if !ok1 || !ok2 {
			return "", fmt.Errorf("sinks: token %q has a bad escape at byte %d", token, i)
		}
		b.WriteByte(hi<<4 | lo)
		i += 2
	}
	if EscapeToken(b.String()) != token {
		return "", fmt.Errorf("sinks: %q is not an escaped token", token)
	}
	return b.String(), nil
}

func unhex(b byte) (byte, bool) {
	switch {
	case '0' <= b && b <= '9':
		return b - '0', true
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10, true
	case 'A' <= b && b <= 'F':
		return b - 'A' + 10, true
	}
	return 0, false
}

// DatabaseAddress returns the tokens that every address of a database's events
// begins with, such as "cdc.shop".
func DatabaseAddress(database string) string { return "cdc." + EscapeToken(database) }

// ResetAddress returns the address of a database's resets.
func ResetAddress(database string) string {
	return DatabaseAddress(database) + "._control.reset.reset.all"
}

// LiveAddress returns the address of a database's live markers.
func LiveAddress(database string) string {
	return DatabaseAddress(database) + "._control.live.live.all"
}

// RegionAddress returns the tokens that every address of a region's events
// begins with, such as "grid.trains.seats".
func RegionAddress(grid, region string) string {
	return "grid." + EscapeToken(grid) + "." + EscapeToken(region)
}

// RegionResetAddress returns the address of a region's resets.
func RegionResetAddress(grid, region string) string {
	return RegionAddress(grid, region) + ".reset.all"
}

// RegionLiveAddress returns the address of a region's live markers.
func RegionLiveAddress(grid, region string) string {
	return RegionAddress(grid, region) + ".live.all"
}

// CollectionAddress returns the tokens that every address of a collection's
// events begins with, such as "cdc.shop.public.seats" or "grid.trains.seats".
func CollectionAddress(s *listeners.Schema) string {
	if s.Namespace == "" {
		return RegionAddress(s.Source, s.Name)
	}
	return DatabaseAddress(s.Source) + "." + EscapeToken(s.Namespace) + "." + EscapeToken(s.Name)
}
