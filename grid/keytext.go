package grid

import (
	"bytes"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// hexMark begins the text of a key that has no other, as that of bytea does in
// Postgres.
const hexMark = `\x`

// keyText returns the text of a part of a key that is no string, number or the
// like: what encoding.TextMarshaler says, or JSON. Two keys must not share it,
// so where these fail, or write a replacement for bytes that are not UTF-8, it
// is the encoding.
func keyText[K comparable](p *keyPart, k *K, v reflect.Value) []byte {
	if !p.mute {
		if text := plainText(v); text != nil {
			return text
		}
	}
	raw := appendSteps(p.steps, nil, k)
	if p.codec != nil {
		raw = p.codec.encode(v.Addr().UnsafePointer())
	}
	return hex.AppendEncode([]byte(hexMark), raw)
}

func plainText(v reflect.Value) []byte {
	if m, ok := as[encoding.TextMarshaler](v); ok {
		text, err := m.MarshalText()
		if err != nil {
			return nil
		}
		return text
	}
	return plainJSON(v)
}

// plainJSON returns nil if the value has no JSON of its own.
func plainJSON(v reflect.Value) []byte {
	text, err := json.Marshal(v.Addr().Interface())
	// What is not UTF-8 is written with six bytes, U+FFFD itself with its three.
	if err != nil || bytes.Contains(text, []byte(`\ufffd`)) {
		return nil
	}
	return text
}

// appendKeyJSON appends the JSON of such a part.
func appendKeyJSON[K comparable](dst []byte, p *keyPart, k *K, v reflect.Value) []byte {
	if !p.mute {
		if text := plainJSON(v); text != nil {
			return append(dst, text...)
		}
	}
	text, err := json.Marshal(string(keyText(p, k, v)))
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, text...)
}

// scan stores what a source has of this part of a key.
func (p *keyPart) scan(v listeners.Value, to reflect.Value) error {
	err := v.Scan(to.Addr().Interface())
	if err == nil || p.codec == nil || p.codec.decode == nil {
		return err
	}
	text, marked := strings.CutPrefix(v.String(), hexMark)
	if !marked {
		return err
	}
	raw, notHex := hex.DecodeString(text)
	if notHex != nil {
		return err
	}
	return p.codec.decode(raw, to)
}
