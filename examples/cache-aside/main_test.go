package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

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

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// ask returns the status and the text of an answer.
func ask(t *testing.T, method, url, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, text))
}

const table = "CREATE TABLE products (id bigint PRIMARY KEY, name text NOT NULL, stock int NOT NULL CHECK (stock >= 0))"

func TestReadsComeFromMemoryAndWritesGoThrough(t *testing.T) {
	// The slot has a fixed name, so the server is not shared.
	databaseURL := pgtest.Own(t, nil).URL("postgres")
	pgtest.Exec(t, databaseURL, table, "INSERT INTO products VALUES (1, 'kettle', 1)")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out output
	over := make(chan error, 1)
	go func() { over <- run(ctx, []string{"-database-url", databaseURL, "-listen", "127.0.0.1:0"}, &out) }()
	var base string
	pgtest.Eventually(t, 2*time.Minute, func() error {
		found := regexp.MustCompile(`1 products in memory, listening on (http://\S+)\n`).FindStringSubmatch(out.String())
		if found == nil {
			return fmt.Errorf("the program has not said where it listens, but %q", out.String())
		}
		base = found[1] + "/products/"
		return nil
	})

	for _, step := range []struct{ method, path, body, want string }{
		{"GET", "1", "", `200 {"name":"kettle","stock":1}`},
		{"GET", "2", "", "404 no such product"},
		{"GET", "two", "", "400 the product's id is a number"},
		{"PUT", "2", `{"name":"mug","stock":9}`, "204"},
		{"GET", "2", "", `200 {"name":"mug","stock":9}`}, // at once: no waiting between a write and a read
		{"POST", "1/sell", "", "204"},
		{"GET", "1", "", `200 {"name":"kettle","stock":0}`},
		{"POST", "1/sell", "", "409 the database refuses it: products_stock_check"},
		{"GET", "1", "", `200 {"name":"kettle","stock":0}`},
		{"DELETE", "2", "", "204"},
		{"GET", "2", "", "404 no such product"},
		{"DELETE", "2", "", "404 no such product"},
		{"POST", "2/sell", "", "404 no such product"},
	} {
		if got := ask(t, step.method, base+step.path, step.body); got != step.want {
			t.Errorf("%s %s = %s, want %s", step.method, step.path, got, step.want)
		}
	}

	// Others may write, too.
	pgtest.Exec(t, databaseURL, "UPDATE products SET stock = 50 WHERE id = 1")
	pgtest.Eventually(t, 2*time.Minute, func() error {
		if got, want := ask(t, "GET", base+"1", ""), `200 {"name":"kettle","stock":50}`; got != want {
			return fmt.Errorf("after an update by hand the cache says %s, want %s", got, want)
		}
		return nil
	})

	// A read asks nobody: it waits for no lock of the database.
	conn := pgtest.Connect(t, databaseURL)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE products IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, "GET", base+"1", ""), `200 {"name":"kettle","stock":50}`; got != want {
		t.Errorf("GET while the table is locked = %s, want %s", got, want)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-over; err != nil {
		t.Errorf("run() = %v, want nil after the context ended", err)
	}
}

func TestWithoutADatabaseItExplains(t *testing.T) {
	t.Setenv("ROWCALL_DATABASE_URL", "")
	err := run(t.Context(), nil, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "-database-url") {
		t.Errorf("run() without a database = %v, want what to do", err)
	}
}

func TestASourceThatCannotStartEndsTheProgram(t *testing.T) {
	databaseURL := pgtest.Own(t, map[string]string{"wal_level": "replica"}).URL("postgres")
	pgtest.Exec(t, databaseURL, table)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	err := run(ctx, []string{"-database-url", databaseURL, "-listen", "127.0.0.1:0"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Errorf("run() with wal_level = replica: %v, want an error that says so", err)
	}
}
