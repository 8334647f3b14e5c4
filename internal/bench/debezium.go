package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

//go:embed Drain.java
var drainJava []byte

// debezium drains to a callback that does nothing, in the JSON that Debezium's
// engine makes of each event, with its default settings but for those named
// here. It needs a JDK.
func (b *bench) debezium() program {
	const name, slot = "Debezium's engine to a callback", "debezium"
	classes := filepath.Join(b.dir, "classes")
	path := filepath.Join(b.jars, "*") + string(os.PathListSeparator) + classes
	return program{
		name: name,
		prepare: func(ctx context.Context) error {
			source := filepath.Join(b.dir, "Drain.java")
			if err := os.WriteFile(source, drainJava, 0o600); err != nil {
				return err
			}
			compile := exec.CommandContext(ctx, "javac", "-cp", path, "-d", classes, source)
			if out, err := compile.CombinedOutput(); err != nil {
				return fmt.Errorf("javac: %w\n%s", err, out)
			}
			_, err := b.conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
			return err
		},
		drain: func(ctx context.Context) (result, error) {
			return measure(ctx, name, "java", "-Xmx512m", "-cp", path, "Drain",
				"rows="+strconv.Itoa(b.rows),
				"name=bench",
				"topic.prefix=bench",
				"connector.class=io.debezium.connector.postgresql.PostgresConnector",
				"offset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
				"converter.schemas.enable=false",
				"database.hostname=127.0.0.1",
				"database.port="+strconv.Itoa(b.server.Port()),
				"database.user="+b.conn.Config().User,
				"database.password="+b.conn.Config().Password,
				"database.dbname=postgres",
				"plugin.name=pgoutput",
				"slot.name="+slot,
				"publication.name="+publication,
				"publication.autocreate.mode=disabled",
				"snapshot.mode=no_data")
		},
	}
}
