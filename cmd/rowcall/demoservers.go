package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

const demoDatabase = "demo"

//go:embed demodatabase.sql
var demoSchema string

// servers are what the demo runs on.
type servers struct {
	postgres   *pgserver.Server
	nats       *natsserver.Server
	dir        string     // of the NATS server
	nc         *nats.Conn // of the publishers
	subscriber *nats.Conn // of somebody else
}

func (s *servers) databaseURL() string { return s.postgres.URL(demoDatabase) }

// startServers returns what it started also on error. The caller stops it.
func startServers(ctx context.Context, tell *story) (s *servers, err error) {
	s = new(servers)
	if s.postgres, err = pgserver.Start(ctx, nil); err != nil {
		return s, err
	}
	if err := s.createDatabase(ctx); err != nil {
		return s, fmt.Errorf("create the demo's tables: %w", err)
	}
	tell.tell(byPostgres, "PostgreSQL %d on port %d: tables trains, seats, bookings", s.postgres.Version(), s.postgres.Port())
	if s.dir, err = os.MkdirTemp("", "rowcall-demo-*"); err != nil {
		return s, err
	}
	if s.nats, err = natsserver.Start(ctx, &natsserver.Options{Dir: s.dir}); err != nil {
		return s, err
	}
	tell.tell(byNATS, "server with JetStream at %s", s.nats.URL())
	if s.nc, err = jetstream.Connect("", &jetstream.ConnectOptions{InProcess: s.nats}); err != nil {
		return s, err
	}
	s.subscriber, err = nats.Connect(s.nats.URL())
	return s, err
}

func (s *servers) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.postgres.URL("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+demoDatabase)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if conn, err = pgx.Connect(ctx, s.databaseURL()); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, demoSchema)
	return errors.Join(err, conn.Close(ctx))
}

// stop ends everything that was started, also after ctx has ended.
func (s *servers) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if s.subscriber != nil {
		s.subscriber.Close()
	}
	if s.nc != nil {
		s.nc.Close()
	}
	var errs []error
	if s.nats != nil {
		s.nats.Stop()
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop(ctx))
	}
	return errors.Join(errs...)
}
