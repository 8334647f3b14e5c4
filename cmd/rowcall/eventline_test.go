package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func TestEventLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 15, 4, 5, 123e6, time.Local)
	for name, tc := range map[string]struct {
		in   sinks.Message
		want string
	}{
		"create": {
			in:   sinks.Message{Op: listeners.Create, Collection: "public.seats", Key: []byte(`{"id":7}`), After: []byte(`{"id":7,"price":20.50,"note":null}`)},
			want: "15:04:05.123  create    public.seats/7  price=20.50  note=null",
		},
		"update with the old row": {
			in:   sinks.Message{Op: listeners.Update, Collection: "public.seats", Key: []byte(`{"id":7}`), Before: []byte(`{"id":7,"price":20.50,"note":"a"}`), After: []byte(`{"id":7,"price":21.00,"note":"a"}`)},
			want: "15:04:05.123  update    public.seats/7  price=20.50 -> 21.00",
		},
		"update of the key": {
			in:   sinks.Message{Op: listeners.Update, Collection: "public.seats", Key: []byte(`{"id":8}`), OldKey: []byte(`{"id":7}`), After: []byte(`{"id":8}`)},
			want: "15:04:05.123  update    public.seats/8  id=7 -> 8",
		},
		"update without a large column": {
			in:   sinks.Message{Op: listeners.Update, Collection: "public.seats", Key: []byte(`{"id":7}`), After: []byte(`{"id":7,"price":1}`), Unchanged: []string{"map"}},
			want: "15:04:05.123  update    public.seats/7  price=1  (as before: map)",
		},
		"delete": {
			in:   sinks.Message{Op: listeners.Delete, Collection: "public.seats", Key: []byte(`{"train":7,"no":"12/A"}`)},
			want: "15:04:05.123  delete    public.seats/7/12/A",
		},
		"truncate": {
			in:   sinks.Message{Op: listeners.Truncate, Collection: "public.seats", Key: []byte(`{}`)},
			want: "15:04:05.123  truncate  public.seats  all rows are gone",
		},
		"reset": {
			in:   sinks.Message{Reset: true},
			want: "15:04:05.123  reset       events may be missing before this; the rows as they stand now follow",
		},
		"a row that would command the terminal": {
			in:   sinks.Message{Op: listeners.Create, Collection: "public.\x1b[2J", Key: []byte(`{"id":"\u001b[31m\u202e"}`), After: []byte("{\"id\":\"x\",\"a\u009b\":\"\u0085\"}")},
			want: `15:04:05.123  create    public.\u001b[2J/\u001b[31m\u202e  a\u009b="\u0085"`,
		},
		"a long value": {
			in:   sinks.Message{Op: listeners.Create, Collection: "t", After: []byte(`{"v":"ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääää"}`)},
			want: `15:04:05.123  create    t  v="ääääääääääääääääääääääääääääääääääääääääääääääääääääääääää…`,
		},
		"no JSON": {
			in:   sinks.Message{Op: listeners.Create, Collection: "t", After: []byte(`[1]`)},
			want: `15:04:05.123  create    t  unreadable: "[1]" is not a JSON object`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := eventPrinter{layout: "15:04:05.000"}
			tc.in.Time = at
			if got := p.format(&tc.in); got != tc.want {
				t.Errorf("format()\n got %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestEventLinesAreAlignedAndColoured(t *testing.T) {
	t.Parallel()
	p := eventPrinter{layout: "15"}
	p.format(&sinks.Message{Op: listeners.Delete, Collection: "public.bookings", Key: []byte(`{"id":1}`)})
	short := &sinks.Message{Op: listeners.Create, Collection: "public.a", Key: []byte(`{"id":1}`), After: []byte(`{"n":1}`)}
	if got, want := p.format(short)[2:], "  create    public.a/1         n=1"; got != want {
		t.Errorf("format() after a longer subject = %q, want %q", got, want)
	}
	p = eventPrinter{layout: "15", palette: palette{on: true}}
	got := p.format(short)
	if want := "  \x1b[32mcreate  \x1b[0m  \x1b[1mpublic.a/1\x1b[0m  \x1b[2mn=\x1b[0m1"; !strings.HasSuffix(got, want) {
		t.Errorf("format() in colour = %q, want %q at its end", got, want)
	}
}
