package listeners_test

import (
	"fmt"
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

func TestNames(t *testing.T) {
	for want, v := range map[string]fmt.Stringer{
		"create": listeners.Create, "update": listeners.Update, "delete": listeners.Delete,
		"truncate": listeners.Truncate, "read": listeners.Read, "message": listeners.Message, "Op(0)": listeners.Op(0), "Op(9)": listeners.Op(9),
		"write": listeners.CauseWrite, "snapshot": listeners.CauseSnapshot, "load": listeners.CauseLoad,
		"expire": listeners.CauseExpire, "evict": listeners.CauseEvict, "clear": listeners.CauseClear,
		"replay": listeners.CauseReplay, "mirror": listeners.CauseMirror, "Cause(8)": listeners.Cause(8),
		"changes": listeners.Changes, "reset": listeners.Reset, "live": listeners.Live, "Kind(4)": listeners.Kind(4),
		"unchanged": listeners.Unchanged, "null": listeners.Null, "present": listeners.Present, "State(3)": listeners.State(3),
	} {
		if got := v.String(); got != want {
			t.Errorf("%T(%d).String() = %q, want %q", v, v, got, want)
		}
	}
	if got := listeners.Snapshot.String(); got != "snapshot" {
		t.Errorf("Snapshot.String() = %q", got)
	}
}

func TestParseOpIsTheInverseOfString(t *testing.T) {
	for _, op := range []listeners.Op{listeners.Create, listeners.Update, listeners.Delete, listeners.Truncate, listeners.Read, listeners.Message} {
		if got, err := listeners.ParseOp(op.String()); got != op || err != nil {
			t.Errorf("ParseOp(%q) = %v, %v", op, got, err)
		}
	}
	for _, text := range []string{"", "Create", "insert", "Op(0)"} {
		if got, err := listeners.ParseOp(text); err == nil {
			t.Errorf("ParseOp(%q) = %v, want an error", text, got)
		}
	}
}
