package house_test

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/rowcall/rowcall"

// pkg is what the rules need to know of one package, by `go list -json`.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Doc        string
	Standard   bool
	GoFiles    []string
	Imports    []string
}

func (p *pkg) ours() bool { return inTree(p.ImportPath, module) }

// room is the import path below the module: "sinks/kafka".
func (p *pkg) room() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// house is every package that ours reach, by import path.
type house map[string]*pkg

// rule inspects one of our packages and returns what is wrong with it.
type rule struct {
	name  string
	check func(h house, p *pkg) []string
}

// layer says what the packages below one folder may reach, themselves and
// through others.
type layer struct {
	ours     []string // folders of this module, besides its own and what is in it
	stdOnly  bool     // the folder itself, not those in it: no other module at all
	noBroker bool     // no broker client
}

var layers = map[string]layer{
	"listeners": {stdOnly: true, noBroker: true},
	"grid":      {ours: []string{"listeners", "internal"}, noBroker: true},
	"cdc":       {ours: []string{"listeners", "internal"}, noBroker: true},
	"sinks":     {ours: []string{"listeners", "internal"}},
}

// rooms are the folders that packages may live in.
var rooms = []string{"listeners", "grid", "cdc", "sinks", "cmd", "examples", "internal"}

// brokers are the client modules, and the only library folder that each may
// appear in.
var brokers = map[string]string{
	"github.com/nats-io":    "sinks/jetstream",
	"github.com/synadia-io": "sinks/jetstream",
	"github.com/twmb":       "sinks/kafka",
	"github.com/rabbitmq":   "sinks/rabbitmq",
}

var brokerGuests = []string{"cmd", "examples", "internal/natsserver", "internal/kafkatest", "internal/bench"}

var rules = []rule{
	{"a package lives in one of " + strings.Join(rooms, ", "), checkRoom},
	{"arrows point down only", checkLayer},
	{"Postgres below grid is for grid/pgwrite", checkPostgres},
	{"broker clients appear in sinks/<broker>, cmd, examples, and internal/natsserver, kafkatest and bench only", checkBrokers},
	{"package testing stays out of what users compile", checkTesting},
	{"every package has a doc.go with its comment", checkDoc},
}

func checkRoom(_ house, p *pkg) []string {
	if !slices.ContainsFunc(rooms, func(room string) bool { return inTree(p.room(), room) }) {
		return []string{"no such room"}
	}
	return nil
}

func checkLayer(h house, p *pkg) []string {
	var wrong []string
	name, _, _ := strings.Cut(p.room(), "/")
	l, ok := layers[name]
	if !ok {
		return nil
	}
	for path, chain := range h.reach(p) {
		dep := h[path]
		switch {
		case dep.Standard || inTree(dep.room(), name) && dep.ours():
		case dep.ours():
			if !slices.ContainsFunc(l.ours, func(room string) bool { return inTree(dep.room(), room) }) {
				wrong = append(wrong, "reaches "+chain)
			}
		case l.stdOnly && p.room() == name:
			wrong = append(wrong, "leaves the standard library: "+chain)
		case l.noBroker && brokerOf(path) != "":
			wrong = append(wrong, "makes its users compile a broker client: "+chain)
		}
	}
	// A broker that imports another one, or the portable part importing any.
	if name == "sinks" {
		for path, chain := range h.reach(p) {
			if client := brokerOf(path); client != "" && !inTree(p.room(), brokers[client]) {
				wrong = append(wrong, "makes its users compile a broker client: "+chain)
			}
		}
	}
	return wrong
}

// checkPostgres keeps regions free of a database that not all of them have.
func checkPostgres(h house, p *pkg) []string {
	if !inTree(p.room(), "grid") || inTree(p.room(), "grid/pgwrite") {
		return nil
	}
	for path, chain := range h.reach(p) {
		if inTree(path, "github.com/jackc/pgx") {
			return []string{"makes its users compile a Postgres client: " + chain}
		}
	}
	return nil
}

func checkBrokers(_ house, p *pkg) []string {
	var wrong []string
	for _, path := range p.Imports {
		client := brokerOf(path)
		if client == "" || inTree(p.room(), brokers[client]) ||
			slices.ContainsFunc(brokerGuests, func(room string) bool { return inTree(p.room(), room) }) {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("imports %s, which belongs in %s", path, brokers[client]))
	}
	return wrong
}

// checkTesting lets test helpers be: packages whose name ends in "test".
func checkTesting(h house, p *pkg) []string {
	if strings.HasSuffix(p.ImportPath, "test") {
		return nil
	}
	if chain, ok := h.reach(p)["testing"]; ok {
		return []string{"reaches " + chain}
	}
	return nil
}

// checkDoc lets a program in examples be one file, for the sake of who copies it.
func checkDoc(_ house, p *pkg) []string {
	switch {
	case inTree(p.room(), "examples"):
		if p.Doc == "" {
			return []string{"no package comment"}
		}
	case !slices.Contains(p.GoFiles, "doc.go"):
		return []string{"no doc.go"}
	case p.Doc == "":
		return []string{"no package comment in doc.go"}
	}
	return nil
}

// reach maps each package that p compiles to the shortest chain of imports that
// leads there.
func (h house) reach(p *pkg) map[string]string {
	chains := map[string]string{}
	type step struct {
		pkg   *pkg
		chain string
	}
	queue := []step{{p, p.ImportPath}}
	for len(queue) > 0 {
		from := queue[0]
		queue = queue[1:]
		for _, path := range from.pkg.Imports {
			if _, seen := chains[path]; seen {
				continue
			}
			chain := from.chain + " -> " + path
			dep, known := h[path]
			if !known {
				continue // "C", and packages that do not load; the compiler reports those
			}
			chains[path] = chain
			if !dep.Standard { // the library does not import us back
				queue = append(queue, step{dep, chain})
			}
		}
	}
	return chains
}

func brokerOf(path string) string {
	for client := range brokers {
		if inTree(path, client) {
			return client
		}
	}
	return ""
}

// inTree reports whether path is root or below it.
func inTree(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}
