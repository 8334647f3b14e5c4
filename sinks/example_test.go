package sinks_test

import (
	"fmt"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func ExampleEncoder() {
	b := changes("shop", 0x2a, listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 7, "12A", nil)})
	c := sinks.NewEncoder(sinks.DefaultPartitions)
	for i := range sinks.Len(b) {
		f := c.Encode(b, i)
		fmt.Println(f.Address)
		fmt.Println(f.ID)
		fmt.Println(f.Subject, f.Time, f.TxEnd)
		fmt.Printf("%s\n", f.Body)
	}
	// Output:
	// cdc.shop.public.seats.create.001
	// postgres/shop/0000000000000007-000000000000002a-00000000
	// public.seats/7 2026-11-23T09:30:00.123456Z true
	// {"op":"create","key":{"id":7},"before":null,"after":{"id":7,"seat":"12A","notes":null}}
}

func ExampleAppendCloudEvent() {
	b := changes("shop", 0x2a, listeners.Event{Op: listeners.Delete, Schema: seats, OldKey: record(seats, 7, unsent, unsent)})
	fmt.Printf("%s\n", sinks.AppendCloudEvent(nil, b, 0))
	// Output:
	// {"specversion":"1.0","id":"postgres/shop/0000000000000007-000000000000002a-00000000","source":"postgres/shop","type":"rowcall.delete.v1","subject":"public.seats/7","partitionkey":"public.seats/7","time":"2026-11-23T09:30:00.123456Z","sequence":"0000000000000007-000000000000002a-00000000","txid":"4711","txend":true,"datacontenttype":"application/json","data":{"op":"delete","key":{"id":7},"before":null,"after":null}}
}

func ExampleDecode() {
	headers := map[string]string{
		"id":       "postgres/shop/0000000000000007-000000000000002a-00000000",
		"subject":  "public.seats/7",
		"sequence": "0000000000000007-000000000000002a-00000000",
		"txend":    "true",
	}
	m, err := sinks.Decode(func(name string) string { return headers[name] },
		[]byte(`{"op":"create","key":{"id":7},"before":null,"after":{"id":7,"seat":"12A"}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %s %s %s %t\n", m.Op, m.Collection, m.Key, m.After, m.TxEnd)
	// Output: create public.seats {"id":7} {"id":7,"seat":"12A"} true
}

func ExamplePartition() {
	p := sinks.Partition("public.seats", []byte("7"), sinks.DefaultPartitions)
	fmt.Println(sinks.PartitionToken(p))
	// Output: 001
}
