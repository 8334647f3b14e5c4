package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

const (
	defaultNATSPort = 4222
	defaultDataDir  = "rowcall-data"
)

// natsFlags say where the events are stored: in a NATS server of the user's, or
// in one that runs inside.
type natsFlags struct {
	url     string
	login   natsLogin
	port    int
	dataDir string

	link *natsLink // while a place uses it
}

func (f *natsFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.url, "nats-url", "", "NATS server with JetStream to publish to, a `URL` or several separated by commas")
	f.login.add(cmd, natsPrefix)
	flags.IntVar(&f.port, "nats-port", defaultNATSPort, "port on 127.0.0.1 of the NATS server inside; 0 takes a free one")
	flags.StringVar(&f.dataDir, "data-dir", defaultDataDir, "`directory` of the NATS server inside")
}

func (f *natsFlags) check() error {
	var faults []error
	if f.port < 0 || f.port > 65535 {
		faults = append(faults, fmt.Errorf("--nats-port %d: want 0 to 65535", f.port))
	}
	if f.url != "" {
		faults = append(faults, checkNATSURL("--nats-url", f.url))
	}
	return usage(faults...)
}

// checkNATSURL finds what nats.go would only find when it connects. It never
// quotes the URL, which may hold a password.
func checkNATSURL(flag, urls string) error {
	for one := range strings.SplitSeq(urls, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil {
			if parse, ok := errors.AsType[*url.Error](err); ok {
				err = parse.Err
			}
			return fmt.Errorf("%s is not a URL such as nats://host:4222: %w", flag, err)
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return fmt.Errorf("%s is not a URL such as nats://host:4222: unknown scheme %q", flag, u.Scheme)
		}
		if u.Hostname() == "" {
			return fmt.Errorf("%s is not a URL such as nats://host:4222: no host", flag)
		}
	}
	return nil
}
