package jetstream_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

var _ = cmp.Diff
var _ = errors.Is
var _ = strings.Cut
var _ listeners.Durable

// publishLatest keeps a region's state in its bucket until the test ends or the
// result is called.
func publishLatest(t testing.TB, nc *nats.Conn, r *tickets) (stop func()) {
	t.Helper()
	f, err := jetstream.NewRegionLatest(nc, "trains", "tickets", "", &jetstream.Options{MaxPending: 64})
	if err != nil {
		t.Fatal(err)
	}
	return publishWith(t, f, r)
}

// mirrorLatest mirrors the bucket.
func mirrorLatest(t testing.TB, nc *nats.Conn) *tickets {
	t.Helper()
	m, s := mirrorOf(t, nc, jetstream.LatestStream("LATEST_TRAINS_TICKETS"), nil)
	start(t, s)
	return m
}

func TestMirrorsOfABucketEqualTheRegionAfterRandomHistories(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			dir := t.TempDir()
			s := natstest.RunWith(t, &natsserver.Options{Dir: dir})
			port := s.Port()
			r := random(t, 80+seed)
			w := new(wire)
			var mirrors []*tickets
			for generation := range 3 {
				g, region := process(t)
				for range 60 * (generation % 2) { // the first and the last begin empty
					change(t, g, region, r)
				}
				stop := publishLatest(t, connect(t, s), region)
				if generation == 0 {
					mirrors = append(mirrors, mirrorLatest(t, connect(t, s, nats.SetCustomDialer(w))))
				}
				for i := range 600 {
					change(t, g, region, r)
					switch {
					case i == 300:
						mirrors = append(mirrors, mirrorLatest(t, connect(t, s)))
					case i == 400:
						s.Stop()
						next, err := natsserver.Start(t.Context(), &natsserver.Options{Dir: dir, Port: port})
						if err != nil {
							t.Fatalf("restart: %v", err)
						}
						s = next
					case i%150 == 149:
						equal(t, "the mirror", mirrors[0], region)
					case r.IntN(60) == 0:
						w.cut()
					}
				}
				mirrors = append(mirrors, mirrorLatest(t, connect(t, s)))
				for i, m := range mirrors {
					equal(t, "mirror "+strconv.Itoa(i), m, region)
				}
				stop()
			}
			s.Stop()
		})
	}
}
