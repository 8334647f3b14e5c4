package cdc_test

import (
	"math"
	"testing"

	"github.com/rowcall/rowcall/cdc"
)

func TestParseLSN(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want cdc.LSN
		fail bool
	}{
		"zero":           {in: "0/0", want: 0},
		"low half":       {in: "0/16B3748", want: 0x16B3748},
		"both halves":    {in: "16/B374D848", want: 0x16_B374D848},
		"lower case":     {in: "16/b374d848", want: 0x16_B374D848},
		"leading zeros":  {in: "00000016/0000D848", want: 0x16_0000D848},
		"largest":        {in: "FFFFFFFF/FFFFFFFF", want: math.MaxUint64},
		"empty":          {in: "", fail: true},
		"no slash":       {in: "16", fail: true},
		"no high half":   {in: "/16", fail: true},
		"no low half":    {in: "16/", fail: true},
		"two slashes":    {in: "1/2/3", fail: true},
		"high too large": {in: "100000000/0", fail: true},
		"low too large":  {in: "0/100000000", fail: true},
		"sign":           {in: "0/-1", fail: true},
		"prefix":         {in: "0x1/0", fail: true},
		"space":          {in: "0/1 ", fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cdc.ParseLSN(tc.in)
			if got != tc.want || (err != nil) != tc.fail {
				t.Errorf("ParseLSN(%q) = %v, %v; want %v, failure %t", tc.in, got, err, tc.want, tc.fail)
			}
		})
	}
}

func TestLSNString(t *testing.T) {
	for in, want := range map[cdc.LSN]string{
		0:              "0/0",
		0x16_B374D848:  "16/B374D848",
		0x1_00000000:   "1/0",
		math.MaxUint64: "FFFFFFFF/FFFFFFFF",
	} {
		if got := in.String(); got != want {
			t.Errorf("LSN(%d).String() = %q, want %q", uint64(in), got, want)
		}
	}
}

func TestLSNScan(t *testing.T) {
	for name, tc := range map[string]struct {
		src  any
		want cdc.LSN
		fail bool
	}{
		"text":         {src: "16/B374D848", want: 0x16_B374D848},
		"faulty text":  {src: "16", fail: true},
		"another type": {src: 16, fail: true},
		"null":         {src: nil, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			var got cdc.LSN
			if err := got.Scan(tc.src); got != tc.want || (err != nil) != tc.fail {
				t.Errorf("Scan(%#v) = %v, value %v; want %v, failure %t", tc.src, err, got, tc.want, tc.fail)
			}
		})
	}
}
