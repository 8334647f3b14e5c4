package main

import "testing"

func TestByteSize(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want byteSize
		text string
		fail bool
	}{
		"powers of ten": {in: "10GB", want: 10_000_000_000, text: "9.3 GiB"},
		"powers of two": {in: "512 MiB", want: 512 << 20, text: "512 MiB"},
		"bare":          {in: "100", want: 100, text: "100 B"},
		"zero":          {in: "0"},
		"no number":     {in: "much", fail: true},
		"negative":      {in: "-1GB", fail: true},
		"too much":      {in: "9EiB", fail: true},
		"nothing":       {in: "", fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			var b byteSize
			if err := b.Set(tc.in); b != tc.want || (err != nil) != tc.fail || b.String() != tc.text {
				t.Errorf("Set(%q) = %v, size %d printed %q; want %d printed %q, failure %t", tc.in, err, b, b.String(), tc.want, tc.text, tc.fail)
			}
		})
	}
}
