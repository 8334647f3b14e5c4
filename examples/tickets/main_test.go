package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// output can be read while the program writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !strings.Contains(o.b.String(), text) {
			return fmt.Errorf("the program has not printed %q, but:\n%s", text, o.b.String())
		}
		return nil
	})
}

func TestTicketsHearsOfASaleInThreeWays(t *testing.T) {
	// The slot has a fixed name, so the server is not shared.
	server := pgtest.Own(t, nil)
	databaseURL := server.URL("postgres")
	pgtest.Exec(t, databaseURL,
		"CREATE TABLE seats (id int PRIMARY KEY, train int NOT NULL, number text NOT NULL, price numeric(10,2) NOT NULL, passenger text)",
		"INSERT INTO seats VALUES (1, 7, '1A', 20, NULL), (2, 7, '1B', 20, NULL)")

	ctx, stop := context.WithCancel(t.Context())
	nats := natstest.Run(t)
	var out output
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-database-url", databaseURL, "-nats-url", nats.URL()}, &out)
	}()
	out.wait(t, "region: 2 seats\n")
	pgtest.Exec(t, databaseURL, "UPDATE seats SET passenger = 'Ada' WHERE id = 1")
	out.wait(t, "listener: Ada bought seat 1A of train 7 for 20.00, 1 are free\n")
	out.wait(t, `nats: public.seats/1 {"op":"update","key":{"id":1}`)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("run() = %v, want nil after the context ended", err)
	}
}

func TestTicketsWithoutADatabaseExplains(t *testing.T) {
	t.Setenv("ROWCALL_DATABASE_URL", "")
	var out output
	err := run(t.Context(), nil, &out)
	if err == nil || !strings.Contains(err.Error(), "-database-url") {
		t.Errorf("run() without a database = %v, want what to do", err)
	}
}
