package natstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver"
)

// Example runs the body of an example with the URL of an empty server, and
// prints its error.
func Example(body func(ctx context.Context, url string) error) {
	if err := example(body); err != nil {
		fmt.Fprintln(os.Stdout, err)
	}
}

func example(body func(ctx context.Context, url string) error) error {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := natsserver.Start(ctx, &natsserver.Options{Dir: dir})
	if err == nil {
		err = body(ctx, server.URL())
		server.Stop()
	}
	return errors.Join(err, os.RemoveAll(dir))
}
