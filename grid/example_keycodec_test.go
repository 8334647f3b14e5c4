package grid_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/rowcall/rowcall/grid"
)

// An address is a key once the grid knows how to write it so that addresses
// sort.
func ExampleNewKeyCodec() {
	ctx := context.Background()
	addresses := grid.NewKeyCodec(func(dst []byte, a netip.Addr) []byte {
		raw := a.As16()
		return append(dst, raw[:]...)
	}, nil) // nothing to parse: an address knows its text
	g := grid.New("net", &grid.Options{Keys: []grid.KeyCodec{addresses}})
	defer g.Close(ctx)
	hosts, err := grid.Open[netip.Addr, string](g, "hosts", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, h := range []string{"10.0.0.10 printer", "10.0.0.9 router", "192.168.0.1 gate"} {
		var ip, name string
		fmt.Sscan(h, &ip, &name)
		if _, err := hosts.Put(ctx, netip.MustParseAddr(ip), name); err != nil {
			fmt.Println(err)
		}
	}
	for a, name := range hosts.Range(netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.1.0.0")) {
		fmt.Println(a, name)
	}
	// Output:
	// 10.0.0.9 router
	// 10.0.0.10 printer
}
