package cdc_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A server that shuts down waits for its walsenders, and they for what has been
// sent to be confirmed. It must not depend on a subscription, or on somebody who
// commits what is prepared, for which a server that shuts down is no help.
func TestAServerShutsDownThoughSomethingIsNotStored(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts     cdc.Options
		prepared bool
	}{
		"a listener hangs":               {},
		"and the feed is full":           {opts: cdc.Options{MaxBytes: 10_000, MaxBatchBytes: 1000}},
		"a transaction is left prepared": {opts: cdc.Options{TwoPhase: true}, prepared: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := pgtest.Own(t, map[string]string{"max_prepared_transactions": "2"})
			url := srv.URL("postgres")
			if v := serverVersion(t, url); tc.prepared && v < 150000 {
				t.Skipf("server version %d does not send prepared transactions; 15 does", v)
			}
			conn := pgtest.Connect(t, url)
			exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
			reached, release := make(chan struct{}), make(chan struct{})
			hang := func(b *listeners.Batch) error {
				if b.Kind == listeners.Changes && b.First && !tc.prepared {
					close(reached)
					<-release
				}
				return nil
			}
			rec := listenertest.Recorder{Err: hang}
			src := run(t, url, &tc.opts, record(t, &rec, nil))
			src.caughtUp()
			const insert = "INSERT INTO seats SELECT generate_series(1, 5000)"
			if tc.prepared {
				exec(t, conn, "BEGIN", insert, "PREPARE TRANSACTION 'left'")
				pgtest.Eventually(t, time.Minute, func() error {
					if n := count(t, conn, "SELECT count(*) FROM pg_stat_replication WHERE sent_lsn > coalesce(flush_lsn, '0/0')"); n == 0 {
						return fmt.Errorf("it was not sent")
					}
					return nil
				})
			} else {
				exec(t, conn, insert)
				<-reached
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := srv.Restart(ctx, pgserver.Fast); err != nil {
				t.Fatal(err)
			}
			if tc.prepared {
				exec(t, pgtest.Connect(t, url), "COMMIT PREPARED 'left'")
			} else {
				close(release)
			}
			src.caughtUp()
			want := make([]string, 5000)
			for i := range want {
				want[i] = strconv.Itoa(i + 1)
			}
			if got := keys(&rec); !slices.Equal(got, want) {
				t.Errorf("%d events, want each of %d once and in order", len(got), len(want))
			}
		})
	}
}
