package listeners_test

import (
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A value that is no struct is found in records that hold no such Go value, as
// those of a stream.
func TestChangeOfAValueThatIsNoStruct(t *testing.T) {
	named := listeners.NewSchema("g", "", "r", []listeners.Column{{Name: "key", Key: true}, {Name: "other"}, {Name: "value"}})
	only := listeners.NewSchema("g", "", "r", []listeners.Column{{Name: "key", Key: true}, {Name: "price"}})
	several := listeners.NewSchema("g", "", "r", []listeners.Column{{Name: "key", Key: true}, {Name: "a"}, {Name: "b"}})
	for name, tc := range map[string]struct {
		after listeners.Record
		want  int
		fail  bool
	}{
		"the column value":     {record(named, 1, 2, 3), 3, false},
		"the only column":      {record(only, 1, 2), 2, false},
		"which of the columns": {record(several, 1, 2, 3), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := listeners.Event{Op: listeners.Create, Schema: tc.after.Schema(), After: tc.after}
			c, err := listeners.NewChange[int](&e)
			if c.After != tc.want || (err != nil) != tc.fail {
				t.Errorf("NewChange[int] = %d, %v; want %d, failure %t", c.After, err, tc.want, tc.fail)
			}
		})
	}
	at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	e := listeners.Event{Op: listeners.Create, Schema: only, After: record(only, 1, at)}
	if c, err := listeners.NewChange[time.Time](&e); err != nil || !c.After.Equal(at) {
		t.Errorf("NewChange[time.Time] = %s, %v; want %s", c.After, err, at)
	}
}
