package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
)

func TestOutboxFlag(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want []cdc.Outbox // nil for a failure
	}{
		"one":           {in: "public.outbox", want: []cdc.Outbox{{Table: "public.outbox"}}},
		"with columns":  {in: "outbox:id=event_id,type=kind", want: []cdc.Outbox{{Table: "outbox", ID: "event_id", Type: "kind"}}},
		"several":       {in: "a:payload=body, b", want: []cdc.Outbox{{Table: "a", Payload: "body"}, {Table: "b"}}},
		"all columns":   {in: "a:id=1,aggregatetype=2,aggregateid=3,type=4,payload=5", want: []cdc.Outbox{{Table: "a", ID: "1", AggregateType: "2", AggregateID: "3", Type: "4", Payload: "5"}}},
		"unknown role":  {in: "a:key=b"},
		"no column":     {in: "a:id="},
		"no table":      {in: "id=b"},
		"nothing":       {in: "a,,b"},
		"empty columns": {in: "a:"},
	} {
		t.Run(name, func(t *testing.T) {
			var l outboxList
			err := l.Set(tc.in)
			if (err != nil) != (tc.want == nil) {
				t.Fatalf("Set(%q) = %v, want failure %t", tc.in, err, tc.want == nil)
			}
			if err == nil {
				if diff := cmp.Diff(tc.want, l.outboxes); diff != "" {
					t.Errorf("Set(%q) (-want +got):\n%s", tc.in, diff)
				}
			}
		})
	}
}
