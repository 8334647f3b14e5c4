package main

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A natsLink is the connection that the places of a run share, and the server
// inside, if there is one.
type natsLink struct {
	nc      *nats.Conn
	server  *natsserver.Server
	address string // with user and password
	where   string // what else is to be said of it
	users   int
}

// join returns the link, which the first one makes. Who joins leaves, and the
// last one to leave ends it. Places are opened and closed one after the other.
func (f *natsFlags) join(ctx context.Context, log *slog.Logger) (*natsLink, error) {
	if f.link == nil {
		link, err := f.connect(ctx, log)
		if err != nil {
			return nil, err
		}
		f.link = link
	}
	f.link.users++
	return f.link, nil
}

func (f *natsFlags) leave() {
	if f.link.users--; f.link.users == 0 {
		f.link.end()
		f.link = nil
	}
}

func (f *natsFlags) connect(ctx context.Context, log *slog.Logger) (*natsLink, error) {
	if f.url != "" {
		nc, err := f.login.connect(f.url, "rowcall")
		return &natsLink{nc: nc, address: f.url}, err
	}
	server, err := natsserver.Start(ctx, &natsserver.Options{Port: f.port, Dir: f.dataDir, Logger: log})
	if err != nil {
		return nil, err
	}
	link := &natsLink{server: server, address: server.URL(), where: ", a server inside that stores in " + f.dataDir}
	if link.nc, err = jetstream.Connect(link.address, &jetstream.ConnectOptions{InProcess: server}); err != nil {
		link.end()
		return nil, err
	}
	return link, nil
}

func (l *natsLink) end() {
	if l.nc != nil {
		l.nc.Close()
	}
	if l.server != nil {
		l.server.Stop()
	}
}
