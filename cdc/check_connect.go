package cdc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

const poolerRemedy = "connect to Postgres itself: a pooler such as PgBouncer does not pass replication on"

// address is where the first attempt goes, without user or password.
func address(c *config) string {
	if strings.HasPrefix(c.conn.Host, "/") {
		return c.conn.Host
	}
	return net.JoinHostPort(c.conn.Host, strconv.Itoa(int(c.conn.Port)))
}

// connectionFinding explains a failed attempt. The driver's error begins with
// the connection's parameters and lists each attempt; only causes are kept.
func connectionFinding(err error, c *config) Finding {
	f := Finding{Check: "connection", Level: Fatal, Object: address(c)}
	cause, remedy := connectionCause(err, c)
	f.Text = fmt.Sprintf("cannot connect to database %q at %s as role %q: %s", c.database, address(c), c.conn.User, cause)
	f.Remedy = remedy
	return f
}

func connectionCause(err error, c *config) (cause, remedy string) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return serverCause(pg, c)
	}
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("host %q: %s", dns.Name, dns.Err), "check the host name in the URL"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused", "check that Postgres runs there, that listen_addresses includes the address, and the port"
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(c.conn.Host, "/"):
		return "there is no socket", "check that Postgres runs, and that unix_socket_directories includes this one"
	case errors.As(err, &host):
		return "the server's certificate is for another host: " + host.Error(), "use the name that is in the certificate, or sslmode=verify-ca"
	case errors.As(err, &authority), errors.As(err, &verification):
		return "the server's certificate is not trusted", "set sslrootcert to the certificate of its authority"
	case strings.Contains(err.Error(), "server refused TLS"):
		return "the server does not speak TLS", "switch ssl on in postgresql.conf, or set sslmode=disable in a network you trust"
	case pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "no answer in time", "check the host, the port and firewalls in between"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error(), "check the host, the port and firewalls in between"
	}
	return rootCause(err), "check the database URL and the server's log"
}

// rootCause is the text below the driver's, which carries the parameters of the
// connection.
func rootCause(err error) string {
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = connect.Unwrap()
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// serverCause goes by SQLSTATE and the server's own routine names, which no
// locale translates.
func serverCause(pg *pgconn.PgError, c *config) (cause, remedy string) {
	user := c.conn.User
	cause = pg.Message
	switch pg.Code {
	case "28P01": // invalid_password
		remedy = "check the password in the URL, PGPASSWORD or the password file"
		if c.conn.Password == "" {
			remedy = "no password was given: put it into the URL, PGPASSWORD or the password file"
		}
	case "28000": // invalid_authorization_specification
		switch {
		case pg.Routine == "ClientAuthentication":
			remedy = fmt.Sprintf("add a line for role %s and database %s to pg_hba.conf and reload it", user, c.database)
			if c.conn.TLSConfig == nil {
				remedy = "set sslmode=require if the server admits only TLS, else " + remedy
			}
		case pg.Routine == "InitializeSessionUserId" && strings.Contains(pg.Message, "log in"):
			remedy = fmt.Sprintf("ALTER ROLE %s LOGIN", quote(user))
		case pg.Routine == "InitializeSessionUserId":
			remedy = fmt.Sprintf("check the user in the URL, or CREATE ROLE %s LOGIN REPLICATION PASSWORD '…'", quote(user))
		default:
			remedy = fmt.Sprintf("check pg_hba.conf and whether role %s may log in", user)
		}
	case "3D000": // invalid_catalog_name
		remedy = "check the database in the URL: psql -l lists those that exist"
	case "42501": // insufficient_privilege
		if pg.Routine == "InitPostgres" { // a walsender without REPLICATION
			return cause, fmt.Sprintf("ALTER ROLE %s REPLICATION", quote(user))
		}
		remedy = fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", quote(c.database), quote(user))
	case "53300": // too_many_connections
		remedy = "close connections, or raise max_connections, max_wal_senders or the role's CONNECTION LIMIT"
	case "57P03": // cannot_connect_now
		remedy = "wait until the server has started, then try again"
	case "08P01": // protocol_violation, a pooler that meets a parameter it does not know
		remedy = poolerRemedy
	default:
		cause = fmt.Sprintf("%s (SQLSTATE %s)", cause, pg.Code)
		remedy = "see the server's log"
	}
	return cause, remedy
}
