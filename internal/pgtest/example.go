package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/pgserver"
)

// Example runs the body of an example with the URL of an empty database, on a
// cluster of its own, and prints its error. An example cannot be skipped: where
// a test would be, for want of PostgreSQL, Example prints output, which is what
// the body would.
func Example(output string, body func(ctx context.Context, databaseURL string) error) {
	_, err := pgserver.Find()
	if errors.Is(err, pgserver.ErrNotFound) && os.Getenv("CI") != "true" && os.Getenv(pgserver.BinDirVariable) == "" {
		fmt.Fprintln(os.Stderr, "an example needs PostgreSQL and is skipped:", err)
		fmt.Fprint(os.Stdout, output)
		return
	}
	if err := example(body); err != nil {
		fmt.Fprintln(os.Stdout, err)
	}
}

func example(body func(ctx context.Context, databaseURL string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := pgserver.Start(ctx, nil)
	if err != nil {
		return err
	}
	err = body(ctx, s.URL("postgres"))
	return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
}

// Execute is [Exec] for an example.
func Execute(ctx context.Context, databaseURL string, statements ...string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
