package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/rowcall/rowcall/sinks/jetstream"
)

func testApp(env map[string]string) *app {
	return &app{stdout: io.Discard, stderr: io.Discard, lookup: func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfigFaultsHaveTheirPlaceAndSayWhatIsAllowed(t *testing.T) {
	t.Parallel()
	env := map[string]string{"SLOT": "Big secret", "PORT": "77777", "EMPTY": "", "BROKER": "kafka://u:hidden@a/b"}
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":               {"slot: a\nslto: b\n", `2:1: unknown key "slto"; did you mean to or slot?`},
		"unknown key, none near":    {"frobnicate: b\n", `1:1: unknown key "frobnicate"; there are catch-up-bytes, data-dir`},
		"key twice":                 {"slot: a\ntables: b\nslot: c\n", `3:1: the key "slot" is there twice, first in line 1`},
		"number for a text":         {"slot: 5\n", `1:7: this is a number; want a text: put it in quotes, "5"`},
		"text for a number":         {"nats-port: \"4222\"\n", `1:12: this is a text; want a number`},
		"fraction":                  {"nats-port: 1.5\n", `1:12: want a number: invalid syntax`},
		"list for a text":           {"slot: [a]\n", `1:7: this is a list; want a text`},
		"mapping for a list":        {"tables:\n  a: b\n", `2:3: this is a mapping; want a list of texts, or one text`},
		"text for true or false":    {"failover: yes\n", `1:11: this is a text; want true or false`},
		"true or false for a word":  {"snapshot: true\n", `1:11: this is true or false; want a text: put it in quotes, "true"`},
		"number in a list":          {"tables: [a, 7]\n", `1:13: this is a number; want a text: put it in quotes, "7"`},
		"nothing":                   {"slot:\n", `there is no value; want a text, or leave the key out for the default`},
		"empty list":                {"tables: []\n", `1:9: the list is empty`},
		"word":                      {"snapshot: always\n", `1:11: want one of initial, never, only`},
		"size":                      {"max-retained-wal: much\n", `1:19: want a size such as 10GB or 512MiB`},
		"port":                      {"nats-port: 70000\n", `1:12: --nats-port 70000: want 0 to 65535`},
		"slot":                      {"slot: Big\n", `1:7: slot "Big": a slot's name has 1 to 63 of a-z, 0-9 and _`},
		"table":                     {"tables:\n  - public.seats\n  - a.b.c\n", `3:5: table "a.b.c": more than two parts`},
		"condition":                 {"where: |\n  op == 1 and\n", `expression, line`},
		"report":                    {"report: no/such/dir.json\n", `1:9: --report no/such/dir.json`},
		"outbox":                    {"outbox: public.outbox:colour=red\n", `1:9: "colour": an outbox has`},
		"variable not set":          {"slot: ${SLOTT}\n", `1:7: the environment variable SLOTT is not set, or empty`},
		"empty variable":            {"slot: a${EMPTY}\n", `1:7: the environment variable EMPTY is not set, or empty`},
		"no variable":               {"slot: ${}\n", `${ begins a variable: write ${NAME}, or $${`},
		"value of a variable":       {"slot: ${SLOT}\n", `1:7: slot "${SLOT}": a slot's name has`},
		"number of a variable":      {"nats-port: ${PORT}\n", `1:12: --nats-port ${PORT}: want 0 to 65535`},
		"anchor":                    {"slot: &x a\npublication: *x\n", `2:14: alias: settings have no anchors, aliases, tags or merges`},
		"tag":                       {"slot: !!str a\n", `1:7: tag: settings have no`},
		"list":                      {"- slot\n", `1:1: this is a list; settings are keys with values`},
		"two documents":             {"slot: a\n---\nslot: b\n", `a second document begins here`},
		"not YAML":                  {"slot: \"a\n", `1:7: could not find end character of double-quoted text`},
		"unknown place":             {"to: natz\n", `1:5: unknown "natz": want nats, stdout, discard`},
		"place without a scheme":    {"to: u:hid@den-hidden@broker:9092\n", `1:5: unknown "broker:9092": want nats`},
		"unknown scheme":            {"to: [ftp://u:hidden@x]\n", `1:6: unknown scheme "ftp": want nats`},
		"place of a variable":       {"to: ${BROKER}\n", `1:5: the URL of Kafka has the broker`},
		"place without a target":    {"to:\n  - stream: a\n", `2:5: the key "target" is missing: want nats`},
		"option of another place":   {"to:\n  - target: nats\n    transactions: true\n", `3:5: "transactions" is not for nats, but for kafka; there are ack-timeout`},
		"unknown option":            {"to:\n  - target: nats\n    steam: a\n", `3:5: unknown key "steam"; did you mean stream?`},
		"option out of range":       {"to:\n  - target: kafka://a\n    partitions: 0\n", `3:17: want a whole number from 1 to`},
		"option of a wrong type":    {"to:\n  - target: kafka://a\n    transactions: 1\n", `3:19: this is a number; want true or false`},
		"duration":                  {"to:\n  - target: kafka://a\n    retention: 30\n", `3:16: this is a number; want a duration such as 90s or 720h`},
		"compression":               {"to:\n  - target: kafka://a\n    compression: zip\n", `3:18: want one of none, gzip, snappy, lz4, zstd`},
		"where of a place":          {"to:\n  - target: stdout\n    where: price > 1\n", `3:12: expression, line 1, column 1: unknown name price`},
		"two of a kind":             {"to:\n  - target: kafka://a\n  - target: kafka://b\n", `3:13: this is the second kafka, after the one in line 2: give each a name`},
		"two on one Kafka":          {"to:\n  - {target: \"kafka://a,b:9093\", name: x}\n  - {target: \"kafka://u:hidden@b:9093?sasl=plain\", name: y}\n", `3:14: this place is on the same Kafka as the one in line 2`},
		"one writer's name twice":   {"to:\n  - {target: kafka://a, name: x, transactional-id: i}\n  - target: kafka://a\n    transactional-id: i\n", `4:23: this place is on the same Kafka as the one in line 2`},
		"two on one Kafka, own ids": {"to:\n  - {target: kafka://a, name: x, transactional-id: i}\n  - {target: \"kafka://b,a\", name: y, transactional-id: j}\n", `3:56: this place is on the same Kafka as the one in line 2, and both would write each event to the same topics`},
		"two without transactions":  {"to:\n  - {target: kafka://a, name: x, transactions: false}\n  - {target: kafka://a, name: y, transactions: false}\n", `3:14: this place is on the same Kafka as the one in line 2, and both`},
		"one id, state and history": {"to:\n  - {target: kafka://a, transactional-id: i}\n  - {target: kafka://a, latest: true, transactional-id: i}\n", `3:57: this place is on the same Kafka as the one in line 2, with the same transactional-id`},
		"two in one bucket":         {"to:\n  - {target: nats, latest: true}\n  - {target: nats, latest: true, name: y}\n", `3:14: this place keeps its state in the same bucket as the one in line 2`},
		"a stream for the state":    {"to:\n  - {target: nats, latest: true, stream: S}\n", `2:14: stream does not go with latest: true`},
		"retention of the state":    {"to:\n  - {target: kafka://a, latest: true, retention: 1h}\n", `2:14: kafka: Retention must be 0`},
		"limits of the state":       {"to:\n  - {target: nats, latest: true, max-messages: 7}\n", `2:14: retention, max-bytes, max-messages`},
		"a gap in the state":        {"to:\n  - {target: kafka://a, latest: true, on-gap: skip}\n", `2:14: on-gap: skip does not go with latest: true`},
		"compression of a stream":   {"to:\n  - {target: nats, compression: zstd}\n", `2:33: want one of none, s2`},
		"fast ingest":               {"to:\n  - {target: nats, fast-ingest: fast}\n", `2:33: want one of auto, off, always`},
		"replicas of a stream":      {"to:\n  - {target: nats, replicas: 7}\n", `2:30: want a whole number from 1 to 5`},
		"sasl":                      {"to:\n  - {target: kafka://a, user: u, password: hidden, sasl: gssapi}\n", `2:58: want one of plain, scram-sha-256, scram-sha-512`},
		"sasl without a user":       {"to:\n  - {target: kafka://a, sasl: plain}\n", `no user`},
		"password without a user":   {"to:\n  - {target: kafka://a, password: hidden}\n", `2:14: there is a password, but no user`},
		"user twice":                {"to:\n  - {target: \"amqp://u:hidden@a\", user: u, password: hidden}\n", `2:14: there is a user in the URL, too`},
		"files without TLS":         {"to:\n  - {target: amqp://a, ca: ca.pem}\n", `2:14: ca, cert, key and server-name are for amqps://`},
		"pending nothing":           {"to:\n  - {target: nats, max-pending-bytes: 0}\n", `2:39: want a size above zero`},
		"domain":                    {"nats-domain: a.b\n", `1:14: the name of a domain has no spaces`},
		"a name where none is":      {"to:\n  - target: nats\n    name: a\n", `there is one nats at most, and it needs no name`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := writeConfig(t, tc.text)
			c, err := testApp(env).readConfig(file)
			if err == nil {
				t.Fatalf("readConfig(%q) = %+v, want an error with %q", tc.text, c, tc.want)
			}
			got := strings.ReplaceAll(err.Error(), file+":", "")
			if !strings.Contains(got, tc.want) || !strings.Contains(err.Error(), file+":") {
				t.Errorf("readConfig(%q) = %q, want the place and %q", tc.text, got, tc.want)
			}
			for _, secret := range []string{"secret", "hidden", "77777"} {
				if strings.Contains(got, secret) {
					t.Errorf("readConfig(%q) = %q, which shows %q", tc.text, got, secret)
				}
			}
		})
	}
}

func TestConfigTellsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := testApp(nil).readConfig(writeConfig(t, "slto: a\nsnapshot: b\ntables: [c, d.e.f, g.h.i]\nto: [x, {target: nats, y: z}]\n"))
	if want := "6 things are wrong"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("readConfig = %v, want %q", err, want)
	}
}

func TestConfigSaysOfPlacesWhatItCan(t *testing.T) {
	t.Parallel()
	c, err := testApp(map[string]string{"HOST": "broker", "N": "32"}).readConfig(writeConfig(t, `
to:
  - stdout
  - target: kafka://${HOST}:9092
    name: first
    partitions: ${N}
    retention: 720h
    transactions: false
    tables: [seats, sales.*]
    where: op != "delete"
  - {target: nats, stream: SHOP, max-bytes: 1GB, fast-ingest: always, atomic: true, compression: s2, tags: [ssd, east], max-messages: 7}
`))
	if err != nil {
		t.Fatal(err)
	}
	run, f := testApp(nil).newRunCommand()
	f.to.take(c.to)
	if want := []string{"stdout", "kafka://broker:9092", "nats"}; !slices.Equal(f.to.list, want) {
		t.Errorf("%s goes to %q, want %q", run.Name(), f.to.list, want)
	}
	o := f.to.at(1)
	if k, brokers, err := o.kafkaOptions(o.target, nil); err != nil || brokers != "kafka://broker:9092" || o.called() != "first" || k.Partitions != 32 || k.Retention.Hours() != 720 || !k.NoTransactions ||
		len(o.tables) != 2 || o.tables[1].Schema != "sales" || !o.tables[1].All || o.where.String() != `op != "delete"` {
		t.Errorf("the second place = %+v, with %+v", o, k)
	}
	if js := f.to.at(2).jetstreamOptions(nil); js.Stream != "SHOP" || js.MaxBytes != 1e9 ||
		js.FastIngest != jetstream.FastIngestAlways || !js.Atomic || !js.Compression || len(js.Tags) != 2 || js.MaxMsgs != 7 {
		t.Errorf("the third place has %+v, want the stream SHOP with what the file says", js)
	}
	if err := f.to.check("--to"); err != nil {
		t.Errorf("check = %v", err)
	}
}

func TestSubstitute(t *testing.T) {
	t.Parallel()
	lookup := func(name string) (string, bool) {
		return map[string]string{"A": "one", "B_2": "${A}"}[name], name != "C"
	}
	for raw, want := range map[string]string{
		"plain $ { }":   "plain $ { }",
		"x${A}y":        "xoney",
		"${A}${A}":      "oneone",
		"${B_2}":        "${A}",
		"$${A} $$${A}":  "${A} $${A}",
		"$A $(A) {{A}}": "$A $(A) {{A}}",
	} {
		if got, err := substitute(raw, lookup); err != nil || got.text != want {
			t.Errorf("substitute(%q) = %q, %v; want %q", raw, got.text, err, want)
		}
	}
	for _, raw := range []string{"${C}", "${", "${1A}", "${A-b}", "${A} ${C}"} {
		if got, err := substitute(raw, lookup); err == nil {
			t.Errorf("substitute(%q) = %q, want an error", raw, got.text)
		}
	}
}

func TestSettingsAreTheFlagsOfRun(t *testing.T) {
	t.Parallel()
	run, _ := testApp(nil).newRunCommand()
	var flags []string
	run.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != flagConfig {
			flags = append(flags, f.Name)
		}
	})
	keys := slices.Sorted(slices.Values(settingKeys()))
	if diff := cmp.Diff(flags, keys); diff != "" {
		t.Errorf("the flags of run (-) and the keys of its file (+) differ:\n%s", diff)
	}
}

func TestEachSettingOfTheExampleIsValid(t *testing.T) {
	t.Parallel()
	a := testApp(map[string]string{"SHOP_PASSWORD": "x", "NATS_PASSWORD": "x", "NATS_TOKEN": "x", "BROKER_PASSWORD": "x"})
	example := a.exampleConfig()
	c, err := a.readConfig(writeConfig(t, example))
	if err != nil || len(c.values) != 1 || len(c.to) != 1 {
		t.Fatalf("readConfig(example) = %+v, %v; want the database's URL and one place", c, err)
	}
	// Without the signs that make comments of settings and places.
	all := regexp.MustCompile(`(?m)^( *)#([a-z-]+:|- target:)`).ReplaceAllString(example, "$1$2")
	c, err = a.readConfig(writeConfig(t, all))
	if err != nil {
		t.Fatalf("readConfig of all that the example names = %v; it is:\n%s", err, all)
	}
	if got, want := len(c.values), len(settings()); got != want || len(c.to) != 3 {
		t.Errorf("the example names %d settings and %d places, want %d and 3", got, len(c.to), want)
	}
	for _, s := range targetSettings() {
		if !regexp.MustCompile(`(?m)^    #` + s.key + ": ").MatchString(example) {
			t.Errorf("the example does not name %s", s.key)
		}
	}
}

func TestDocsNameEverySetting(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- settings -->\n", "<!-- end of settings -->\n"
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), begin)
	got, _, closed := strings.Cut(rest, end)
	if want := testApp(nil).settingsTable(); !found || !closed || got != want {
		t.Errorf("docs/configuration.md has other settings than the program (-); between %q and %q there should be:\n%s\n%s", begin, end, want, cmp.Diff(want, got))
	}
}
