package main

import (
	"fmt"

	"github.com/rowcall/rowcall/cdc"
)

// A setting is a flag of "rowcall run" as a key of its configuration file. The
// file's example and the documentation are made of these and of the flags'
// own words.
type setting struct {
	group   string // begins a group, with these words
	key     string // the flag's name
	example string // as it stands in a file
	active  bool   // in the example: otherwise a comment

	// check, if there is one, finds what the flag's own Set does not: one text,
	// or one of a list.
	check func(text string) error
	// ofSource settings hold for other commands about the database, too.
	ofSource bool
}

// settings are all of them, but "to", which has options of its own: see
// targetSettings.
func settings() []setting {
	source := func(set func(*cdc.Options, string)) func(string) error {
		return func(text string) error {
			opts := new(cdc.Options)
			set(opts, text)
			_, err := cdc.New("postgres://localhost/database", opts)
			return err
		}
	}
	return []setting{
		{
			group: "The database", key: "database-url", example: "postgres://app:${SHOP_PASSWORD}@localhost/shop", active: true, ofSource: true,
			check: func(text string) error { _, err := cdc.New(text, nil); return err },
		},
		{
			key: "tables", example: "[public.seats, sales.*]", ofSource: true,
			check: source(func(o *cdc.Options, text string) { o.Tables = []string{text} }),
		},
		{key: "slot", example: "rowcall_shop", ofSource: true, check: source(func(o *cdc.Options, text string) { o.Slot = text })},
		{key: "publication", example: "rowcall_shop", ofSource: true, check: source(func(o *cdc.Options, text string) { o.Publication = text })},
		{key: "snapshot", example: "initial", ofSource: true},
		{key: "snapshot-workers", example: "4", ofSource: true, check: source(func(*cdc.Options, string) {})},
		{
			key: "messages", example: "[orders.*, audit]", ofSource: true,
			check: source(func(o *cdc.Options, text string) { o.Messages = []string{text} }),
		},
		{key: "outbox", example: "[\"public.outbox:id=event_id,type=kind\"]", ofSource: true, check: func(text string) error {
			var l outboxList
			if err := l.Set(text); err != nil {
				return err
			}
			return source(func(o *cdc.Options, _ string) { o.Outbox = l.outboxes })(text)
		}},

		{group: "What is published", key: "where", example: "op != \"truncate\""},
		{key: "journal", example: "true"},
		{key: "until-caught-up", example: "false"},
		{key: "report", example: "report.json", check: checkReport},

		{group: "NATS", key: "nats-url", example: "nats://localhost:4222", check: func(text string) error { return checkNATSURL("nats-url", text) }},
		{key: "nats-creds", example: "rowcall.creds"},
		{key: "nats-nkey", example: "rowcall.nk"},
		{key: "nats-user", example: "rowcall"},
		{key: "nats-password", example: "${NATS_PASSWORD}"},
		{key: "nats-password-file", example: "/run/secrets/nats"},
		{key: "nats-token", example: "${NATS_TOKEN}"},
		{key: "nats-token-file", example: "/run/secrets/nats"},
		{key: "nats-ca", example: "ca.pem"},
		{key: "nats-cert", example: "cert.pem"},
		{key: "nats-key", example: "key.pem"},
		{key: "nats-server-name", example: "nats.internal"},
		{key: "nats-domain", example: "hub", check: func(text string) error { return (&natsPlace{domain: text}).wrongDomain() }},
		{key: "nats-api-prefix", example: "hub.API", check: func(text string) error { return (&natsPlace{apiPrefix: text}).wrongPrefix() }},
		{key: "nats-port", example: "4222", check: func(text string) error {
			var port int
			if _, err := fmt.Sscan(text, &port); err != nil {
				return err
			}
			return (&natsFlags{port: port}).check()
		}},
		{key: "data-dir", example: "rowcall-data"},

		{group: "The slot, and what is remembered of it", key: "state-dir", example: "/var/lib/rowcall"},
		{key: "lost-slot", example: "fail"},
		{key: "max-retained-wal", example: "10GB"},
		{key: "retained-wal-policy", example: "warn"},
		{key: "failover", example: "false"},

		{group: "How the slot is read", key: "streaming", example: "\"on\""},
		{key: "spool-dir", example: "/var/tmp"},
		{key: "two-phase", example: "false"},
		{key: "catch-up-bytes", example: "64MiB"},
		{key: "undecodable", example: "stop"},

		{group: "Logs", key: "log-level", example: "info"},
		{key: "log-format", example: "text"},
	}
}
