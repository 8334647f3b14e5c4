package cdc

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// pluginOptions are what pgoutput is asked for over either interface, name and
// value, which are not quoted for SQL yet (Postgres manual, "Logical Streaming
// Replication Parameters").
func (c *config) pluginOptions() [][2]string {
	return [][2]string{{"proto_version", "1"}, {"publication_names", quote(c.Publication)}, {"messages", "true"}}
}

// streamOptions are the options of START_REPLICATION on a server of a major
// version.
func (c *config) streamOptions(version int, streaming, twoPhase bool) string {
	options, protocol := c.pluginOptions(), "1"
	if streaming {
		protocol = "2"
		options = append(options, [2]string{"streaming", "on"})
	}
	if twoPhase {
		protocol = "3"
		options = append(options, [2]string{"two_phase", "on"})
	}
	if streaming && version >= 16 {
		// Its abort messages hold more, for which it wants another word.
		protocol, options[len(c.pluginOptions())][1] = "4", "parallel"
	}
	options[0][1] = protocol
	text := make([]string, len(options))
	for i, o := range options {
		text[i] = o[0] + " " + literal(o[1])
	}
	return strings.Join(text, ", ")
}

// serverVersion returns the server's major version, 0 if it does not tell.
func serverVersion(conn *pgconn.PgConn) int {
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	// A version in development is such as "19devel".
	v, _ := strconv.Atoi(strings.TrimRight(major, "abcdefghijklmnopqrstuvwxyz"))
	return v
}
