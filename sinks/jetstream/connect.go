package jetstream

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/sinks"
)

// ConnectOptions set up a connection. Nil and zero mean the defaults.
type ConnectOptions struct {
	// Name is what the server's monitoring shows. Default "rowcall".
	Name string
	// InProcess connects to a server within this process, without a socket;
	// the URL is then ignored.
	InProcess nats.InProcessConnProvider
	// At most one of the following says who connects: the path of a NATS
	// credentials file, the path of a file with the seed of an NKEY, a user and
	// a password, or a token. Default: what the URL says.
	CredentialsFile string
	NKeySeedFile    string
	User, Password  string
	Token           string
	// TLS is used for servers that want TLS. Default: what the URL says.
	TLS *tls.Config
	// CAFile holds the certificates, in PEM, of authorities that the servers'
	// are to be signed by, and CertFile and KeyFile the client's own certificate
	// and its key. Each sets up TLS. They may not be set beside TLS.
	CAFile            string
	CertFile, KeyFile string
	// Timeout bounds each attempt to connect. Default 5s.
	Timeout time.Duration
	// ReconnectWait is the pause between attempts to connect again. Default
	// 250ms.
	ReconnectWait time.Duration
	// Nats are further options, applied last.
	Nats []nats.Option
}

// Connect connects to a server; serverURL may list several, separated by commas. It
// tries each once, blocks for at most ConnectOptions.Timeout at each, and returns a
// [sinks.UnreachableError] if none answers. The caller closes the connection, after the
// firehoses, sources and groups that use it have ended.
//
// The connection has what a firehose wants of one, and who makes his own
// should set it too: MaxReconnects(-1), because a connection that gives up ends
// the firehose, and ReconnectBufSize(-1), because a buffer for the time without
// a server only holds messages that are sent again anyway. Without them the
// firehose is slower to recover, but as exact.
func Connect(serverURL string, opts *ConnectOptions) (*nats.Conn, error) {
	var o ConnectOptions
	if opts != nil {
		o = *opts
	}
	if o.Name == "" {
		o.Name = "rowcall"
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.ReconnectWait == 0 {
		o.ReconnectWait = 250 * time.Millisecond
	}
	set := []nats.Option{
		nats.Name(o.Name), nats.Timeout(o.Timeout),
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.ReconnectWait(o.ReconnectWait), nats.ReconnectJitter(o.ReconnectWait/4, o.ReconnectWait/2),
	}
	servers := []string{"this process"}
	if o.InProcess != nil {
		set = append(set, nats.InProcessServer(o.InProcess))
		serverURL = ""
	} else {
		var err error
		if servers, err = hosts(serverURL); err != nil {
			return nil, err
		}
	}
	security, err := o.security()
	if err != nil {
		return nil, err
	}
	set = append(set, security...)
	nc, err := nats.Connect(serverURL, append(set, o.Nats...)...)
	if err != nil {
		return nil, &sinks.UnreachableError{Broker: "NATS", Servers: servers, Err: err}
	}
	return nc, nil
}

// hosts returns the servers of a list of URLs, without credentials. Its error
// does not quote the URL, since what does not parse may be a password.
func hosts(list string) ([]string, error) {
	var found []string
	for i, s := range strings.Split(list, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("NATS URL %d is not valid: want nats://[user:password@]host[:port], special characters percent-encoded", i+1)
		}
		port := u.Port()
		if port == "" {
			port = "4222"
		}
		found = append(found, u.Hostname()+":"+port)
	}
	return found, nil
}
