package house_test

import (
	"strings"
	"testing"
)

// build makes a house of packages without files: each line is a package below
// the module, a colon and its imports.
func build(lines ...string) house {
	h := house{}
	for _, line := range lines {
		name, imports, _ := strings.Cut(line, ":")
		h[abs(name)] = &pkg{ImportPath: abs(name), Doc: "Package.", GoFiles: []string{"doc.go"}}
		for dep := range strings.FieldsSeq(imports) {
			h[abs(name)].Imports = append(h[abs(name)].Imports, abs(dep))
		}
	}
	for _, name := range []string{"testing", "context"} {
		h[name] = &pkg{ImportPath: name, Standard: true}
	}
	return h
}

// abs completes the names of our folders; others stand as they are.
func abs(name string) string {
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case "testing", "context", "github.com":
		return name
	}
	return module + "/" + name
}

func TestRulesCatch(t *testing.T) {
	const nats, kgo, amqp, other = "github.com/nats-io/nats.go", "github.com/twmb/franz-go/pkg/kgo",
		"github.com/rabbitmq/amqp091-go", "github.com/cenkalti/backoff/v4"
	const pgx = "github.com/jackc/pgx/v5"
	foreignPackages := []string{nats + ":", kgo + ":", amqp + ":", other + ":", pgx + ":"}

	for name, tc := range map[string]struct {
		packages []string
		want     string // in the only fault; empty: none
	}{
		"the house as it is meant": {packages: []string{
			"listeners: context listeners/internal/ring", "listeners/internal/ring:",
			"grid: listeners internal/x " + other, "cdc: listeners internal/x cdc/internal/decode " + pgx, "cdc/internal/decode:",
			"internal/x: context", "grid/gridtest: grid testing", "grid/pgwrite: grid listeners " + pgx,
			"sinks: listeners", "sinks/kafka: sinks " + kgo, "sinks/jetstream/kv: sinks " + nats, "sinks/rabbitmq: sinks " + amqp,
			"sinks/sinktest: sinks testing", "internal/natsserver: " + nats, "internal/natsserver/natstest: internal/natsserver testing",
			"cmd/rowcall: cdc grid sinks/kafka sinks/jetstream/kv internal/natsserver " + nats,
			"examples/seats: grid " + nats,
		}},
		"listeners import ours": {
			packages: []string{"listeners: internal/x", "internal/x:"}, want: "/listeners: reaches",
		},
		"a folder of listeners imports a module": {packages: []string{"listeners/expression: listeners " + other, "listeners:"}},
		"listeners import a module": {
			packages: []string{"listeners: " + other}, want: "leaves the standard library",
		},
		"grid imports cdc": {
			packages: []string{"grid: cdc", "cdc:"}, want: "/grid: reaches",
		},
		"cdc imports grid through internal": {
			packages: []string{"cdc: internal/x", "internal/x: grid", "grid:"}, want: "-> " + module + "/internal/x -> " + module + "/grid",
		},
		"grid imports sinks": {
			packages: []string{"grid: sinks", "sinks:"}, want: "/grid: reaches",
		},
		"grid compiles a Postgres client": {
			packages: []string{"grid: internal/x", "internal/x: " + pgx}, want: "/grid: makes its users compile a Postgres client",
		},
		"writing through imports cdc": {
			packages: []string{"grid/pgwrite: cdc", "cdc:"}, want: "/grid/pgwrite: reaches",
		},
		"cdc compiles a broker client": {
			packages: []string{"cdc: internal/natsserver", "internal/natsserver: " + nats}, want: "broker client",
		},
		"sinks import cdc": {
			packages: []string{"sinks/kafka: cdc", "cdc:"}, want: "/sinks/kafka: reaches",
		},
		"sinks compile one broker": {
			packages: []string{"sinks: sinks/kafka", "sinks/kafka: " + kgo}, want: "/sinks: makes its users compile",
		},
		"one broker compiles another": {
			packages: []string{"sinks/kafka: sinks/jetstream", "sinks/jetstream: " + nats}, want: "/sinks/kafka: makes its users compile",
		},
		"broker client in internal": {
			packages: []string{"internal/x: " + amqp}, want: "belongs in sinks/rabbitmq",
		},
		"testing in the binary": {
			packages: []string{"cmd/rowcall: internal/pgtest", "internal/pgtest: testing"}, want: "/cmd/rowcall: reaches",
		},
		"a new room": {
			packages: []string{"utils:"}, want: "no such room",
		},
		"a room that only begins like another": {
			packages: []string{"gridlock:"}, want: "no such room",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(append(tc.packages, foreignPackages...)...)
			var faults []string
			for _, p := range h {
				if !p.ours() {
					continue
				}
				for _, r := range rules {
					for _, fault := range r.check(h, p) {
						faults = append(faults, p.ImportPath+": "+fault)
					}
				}
			}
			switch {
			case tc.want == "" && len(faults) > 0:
				t.Errorf("faults = %q, want none", faults)
			case tc.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], tc.want)):
				t.Errorf("faults = %q, want one that contains %q", faults, tc.want)
			}
		})
	}
}

func TestDocRuleCatches(t *testing.T) {
	for name, tc := range map[string]struct {
		pkg  pkg
		want int
	}{
		"doc.go with a comment":      {pkg{ImportPath: module + "/cdc", Doc: "x", GoFiles: []string{"doc.go"}}, 0},
		"comment elsewhere":          {pkg{ImportPath: module + "/cdc", Doc: "x", GoFiles: []string{"cdc.go"}}, 1},
		"doc.go without a comment":   {pkg{ImportPath: module + "/cdc", GoFiles: []string{"doc.go"}}, 1},
		"example of one file":        {pkg{ImportPath: module + "/examples/x", Doc: "x", GoFiles: []string{"main.go"}}, 0},
		"example without a comment":  {pkg{ImportPath: module + "/examples/x", GoFiles: []string{"main.go"}}, 1},
		"not an example by its name": {pkg{ImportPath: module + "/examplesx", Doc: "x", GoFiles: []string{"main.go"}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := checkDoc(nil, &tc.pkg); len(got) != tc.want {
				t.Errorf("checkDoc(%+v) = %q, want %d faults", tc.pkg, got, tc.want)
			}
		})
	}
}
