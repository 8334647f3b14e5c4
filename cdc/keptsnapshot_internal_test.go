package cdc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeeperSlotIsALegalNameOfItsOwn(t *testing.T) {
	long := strings.Repeat("x", 62)
	names := map[string]string{}
	for _, slot := range []string{"s", strings.Repeat("y", 54), strings.Repeat("y", 55), long + "a", long + "b"} {
		name := keeperSlot(slot)
		if !slotName.MatchString(name) || !strings.HasSuffix(name, "_snapshot") || name != keeperSlot(slot) {
			t.Errorf("keeperSlot(%q) = %q, want a slot's name that ends in _snapshot, always the same", slot, name)
		}
		if other, taken := names[name]; taken {
			t.Errorf("keeperSlot(%q) = %q, as for %q", slot, name, other)
		}
		names[name] = slot
	}
	if got := keeperSlot("rowcall_shop"); got != "rowcall_shop_snapshot" {
		t.Errorf("keeperSlot(rowcall_shop) = %q", got)
	}
}

func TestChunksAreTheWholeTable(t *testing.T) {
	for name, tc := range map[string]struct {
		size tableSize
		want []int64 // from and to of each
	}{
		"empty":           {tableSize{}, []int64{0, 0}},
		"small":           {tableSize{pages: 10, largest: 10}, []int64{0, 0}},
		"large":           {tableSize{pages: 25, largest: 25}, []int64{0, 10, 10, 20, 20, 0}},
		"just two":        {tableSize{pages: 20, largest: 20}, []int64{0, 10, 10, 0}},
		"five partitions": {tableSize{pages: 25, largest: 5}, []int64{0, 2, 2, 4, 4, 0}},
		"many partitions": {tableSize{pages: 300, largest: 3}, []int64{0, 1, 1, 2, 2, 0}},
		"foreign":         {tableSize{pages: 300, largest: 300, scattered: true}, []int64{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			table := snapshotTable{size: tc.size}
			var got []int64
			for _, c := range table.chunks(10) {
				got = append(got, c.from, c.to)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("chunks(10) of %+v (-want +got):\n%s", tc.size, diff)
			}
		})
	}
}
