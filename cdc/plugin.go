package cdc

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// pluginOptions are those of pgoutput on a server of a major version (Postgres
// manual, "Logical Streaming Replication Parameters").
func (c *config) pluginOptions(version int, streaming bool) string {
	protocol := 1
	var more strings.Builder
	if c.TwoPhase {
		protocol = 3
		more.WriteString(", two_phase 'on'")
	}
	switch {
	case streaming && version >= 16:
		protocol = 4
		more.WriteString(", streaming 'parallel'")
	case streaming:
		protocol = max(protocol, 2)
		more.WriteString(", streaming 'on'")
	}
	return fmt.Sprintf("proto_version '%d', publication_names %s, messages 'true'%s", protocol, literal(quote(c.Publication)), more.String())
}

// serverVersion returns the server's major version, 0 if it does not tell.
func serverVersion(conn *pgconn.PgConn) int {
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	// A version in development is such as "19devel".
	v, _ := strconv.Atoi(strings.TrimRight(major, "abcdefghijklmnopqrstuvwxyz"))
	return v
}
