package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// StartStandby makes a standby of a running cluster, from a copy of its files,
// and starts it. It follows the primary over a physical slot named standby,
// with hot_standby_feedback, which counts towards the primary's
// max_replication_slots until it is dropped there. The rest is as with [Start].
// Postgres 15 or later.
//
// SELECT pg_promote() makes it a primary.
func StartStandby(ctx context.Context, primary *Server, opts *Options) (_ *Server, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start a standby: %w", err)
	}
	o.BinDir = primary.opts.BinDir
	s := &Server{opts: o, port: o.Port, as: primary.as, version: primary.version}
	if s.layout, err = newLayout(&o, s.as); err != nil {
		return nil, fmt.Errorf("start a standby: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a standby of port %d: %w", primary.port, err), s.layout.remove())
		}
	}()
	if err := s.backup(ctx, primary); err != nil {
		return nil, err
	}
	return s, s.firstStart(ctx)
}

// backup copies the primary's files as in "Making a Base Backup Using the Low
// Level API" of the PostgreSQL documentation: the connection that begins it has
// to end it.
func (s *Server) backup(ctx context.Context, primary *Server) error {
	conn, err := pgconn.Connect(ctx, primary.SocketURL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	query := func(sql string) (string, error) {
		results, err := conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			return "", fmt.Errorf("%s: %w", sql, err)
		}
		return string(results[0].Rows[0][0]), nil
	}
	if _, err := query("SELECT pg_create_physical_replication_slot('standby', true)"); err != nil {
		return err
	}
	if _, err := query("SELECT pg_backup_start('standby', true)"); err != nil {
		return err
	}
	if err := s.copyData(primary.layout.data); err != nil {
		return err
	}
	label, err := query("SELECT labelfile FROM pg_backup_stop(false)")
	if err != nil {
		return err
	}
	conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", primary.port)
	for name, content := range map[string]string{
		"backup_label":   label,
		"standby.signal": "",
		"postgresql.auto.conf": fmt.Sprintf("primary_conninfo = '%s'\nprimary_slot_name = 'standby'\nhot_standby_feedback = on\n"+
			"wal_receiver_status_interval = 1\nwal_retrieve_retry_interval = 200ms\n", conninfo),
	} {
		path := filepath.Join(s.layout.data, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
		if err := s.as.own(path); err != nil {
			return err
		}
	}
	return nil
}

// copyData leaves out what belongs to the running server, its slots, and its
// WAL, which the standby gets over the network.
func (s *Server) copyData(from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(from, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a running server removes files
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		case name == "." || name == "postmaster.pid" || name == "postmaster.opts":
			return nil
		}
		to := filepath.Join(s.layout.data, name)
		switch {
		case entry.IsDir() && filepath.Dir(name) == "pg_replslot":
			return filepath.SkipDir
		case entry.IsDir():
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
		case strings.HasPrefix(name, "pg_wal"+string(filepath.Separator)):
			return nil
		default:
			if err := copyFile(path, to); errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if err := s.as.own(to); err != nil {
			return err
		}
		return nil
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
