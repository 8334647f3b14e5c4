package jetstream_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func wantStreamError(t *testing.T, err error, words string) {
	t.Helper()
	var wrong *sinks.PlaceError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want a PlaceError with %q", err, words)
	}
}

func TestStreamThatIsCreated(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	f, err := jetstream.New(nc, "my-shop", &jetstream.Options{MaxAge: time.Hour, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := f.Name(), "CDC_MY-2DSHOP"; got != want {
		t.Errorf("Stream = %q, want %q", got, want)
	}
	stream, err := natstest.JetStream(t, s).Stream(t.Context(), f.Name())
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	if len(c.Subjects) != 1 || c.Subjects[0] != "cdc.my-2dshop.>" || c.Storage != natsjs.FileStorage || c.Retention != natsjs.LimitsPolicy ||
		!c.AllowDirect || c.Duplicates != 100*time.Millisecond || c.MaxAge != time.Hour || c.MaxBytes != 1<<20 || c.Replicas != 1 {
		t.Errorf("stream = %+v", c)
	}
}

func TestStreamThatExists(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config natsjs.StreamConfig
		want   string // in the error; "" for none
	}{
		"owner's limits":  {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, MaxMsgs: 7, Storage: natsjs.MemoryStorage}, ""},
		"more subjects":   {natsjs.StreamConfig{Subjects: []string{"cdc.>", "other"}}, ""},
		"a wildcard":      {natsjs.StreamConfig{Subjects: []string{"cdc.*.>"}}, ""},
		"fewer subjects":  {natsjs.StreamConfig{Subjects: []string{"cdc.shop.public.>"}}, "do not hold cdc.shop.>"},
		"other subjects":  {natsjs.StreamConfig{Subjects: []string{"cdc.store.>"}}, "do not hold cdc.shop.>"},
		"too narrow":      {natsjs.StreamConfig{Subjects: []string{"cdc.shop.*"}}, "do not hold cdc.shop.>"},
		"work queue":      {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, Retention: natsjs.WorkQueuePolicy}, "retention"},
		"interest":        {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, Retention: natsjs.InterestPolicy}, "retention"},
		"no acks":         {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, NoAck: true}, "does not acknowledge"},
		"mirror":          {natsjs.StreamConfig{Mirror: &natsjs.StreamSource{Name: "ORIGIN"}}, "is a mirror"},
		"sealed":          {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}}, "is sealed"},
		"copies":          {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, Sources: []*natsjs.StreamSource{{Name: "ORIGIN"}}}, "copies from other streams"},
		"first sequence":  {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, FirstSeq: 1000}, ""},
		"subjects taken":  {natsjs.StreamConfig{Name: "OTHER", Subjects: []string{"cdc.shop.>"}}, "belong to OTHER already"},
		"discards newest": {natsjs.StreamConfig{Subjects: []string{"cdc.shop.>"}, Discard: natsjs.DiscardNew}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := natstest.Run(t)
			js := natstest.JetStream(t, s)
			if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "ORIGIN", Subjects: []string{"origin"}}); err != nil {
				t.Fatal(err)
			}
			if tc.config.Name == "" {
				tc.config.Name = "CDC_SHOP"
			}
			if _, err := js.CreateStream(t.Context(), tc.config); err != nil {
				t.Fatal(err)
			}
			if name == "sealed" {
				tc.config.Sealed = true
				if _, err := js.UpdateStream(t.Context(), tc.config); err != nil {
					t.Fatal(err)
				}
			}
			nc := connect(t, s)
			f, err := tryOpen(t, nc, nil)
			if tc.want != "" {
				wantStreamError(t, err, tc.want)
				return
			}
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			store(t, f, []*listeners.Batch{reset(1), transaction(1, 5)})
			if got := len(contents(t, nc)); got != 5 {
				t.Errorf("the stream holds %d messages, want 5 and no reset", got)
			}
		})
	}
}

func TestStreamTakenAwayInMidLoad(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		do   func(t *testing.T, js natsjs.JetStream)
		want string
	}{
		"deleted": {func(t *testing.T, js natsjs.JetStream) {
			if err := js.DeleteStream(t.Context(), "CDC_SHOP"); err != nil {
				t.Fatal(err)
			}
		}, "was deleted"},
		"made anew": {func(t *testing.T, js natsjs.JetStream) {
			if err := js.DeleteStream(t.Context(), "CDC_SHOP"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the stream is made anew", func() bool {
				_, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}})
				return err == nil
			})
		}, "it ends at 0, but 5 was acknowledged"},
		"sealed": {func(t *testing.T, js natsjs.JetStream) {
			if _, err := js.UpdateStream(t.Context(), natsjs.StreamConfig{Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}, Sealed: true}); err != nil {
				t.Fatal(err)
			}
		}, "is sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := natstest.Run(t)
			f := openAnew(t, connect(t, s), &jetstream.Options{AckTimeout: time.Second})
			store(t, f, []*listeners.Batch{transaction(1, 5)})
			tc.do(t, natstest.JetStream(t, s))
			err := feed(t.Context(), f, []*listeners.Batch{transaction(2, 5)})
			if err == nil {
				err = f.Flush(t.Context())
			}
			wantStreamError(t, err, tc.want)
		})
	}
}

// Limits that have removed everything take the place along, not the sequence.
func TestPurgedStreamGoesOn(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	nc := connect(t, s)
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{transaction(1, 5)})
	stream, err := natstest.JetStream(t, s).Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	store(t, f, []*listeners.Batch{transaction(2, 5)})
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Close()
	store(t, open(t, nc, nil), []*listeners.Batch{transaction(3, 5)})
	verify(t, nc, []*listeners.Batch{transaction(3, 5)})
}
