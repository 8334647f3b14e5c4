package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A place is where something stands in a file.
type place struct {
	file         string
	line, column int // both from 1
}

// String returns the place as compilers write it.
func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column) }

// errorf returns an error that begins with the place.
func (p place) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", p, fmt.Errorf(format, args...))
}

// A nodeKind is what a value in a file is.
type nodeKind string

const (
	nodeNothing nodeKind = "nothing"
	nodeText    nodeKind = "a text"
	nodeNumber  nodeKind = "a number"
	nodeBool    nodeKind = "true or false"
	nodeList    nodeKind = "a list"
	nodeMapping nodeKind = "a mapping"
)

// A node is a value in a file of settings.
type node struct {
	at      place
	kind    nodeKind
	text    string // of a scalar, as it is written
	items   []*node
	members []pair
}

// A pair is a key of a mapping with its value.
type pair struct {
	at    place
	key   string
	value *node
}

// parseYAML reads a file that holds one mapping. It reports every key that is
// there twice, and everything that settings do not need and this does not know.
func parseYAML(file string, text []byte) (*node, error) {
	parsed, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey()) // they are reported below, all of them
	if err != nil {
		if wrong, ok := errors.AsType[yaml.Error](err); ok {
			return nil, usage(placeOf(file, wrong.GetToken()).errorf("%s", wrong.GetMessage()))
		}
		return nil, usage(fmt.Errorf("%s: %w", file, err))
	}
	docs := slices.DeleteFunc(parsed.Docs, func(d *ast.DocumentNode) bool { return d.Body == nil })
	start := place{file, 1, 1}
	switch {
	case len(docs) == 0:
		return &node{at: start, kind: nodeMapping}, nil
	case len(docs) > 1:
		return nil, usage(placeOf(file, docs[1].Body.GetToken()).errorf("a second document begins here: settings are one"))
	}
	r := &yamlReader{file: file}
	root := r.node(docs[0].Body)
	if root.kind != nodeMapping && len(r.faults) == 0 {
		return nil, usage(root.at.errorf("this is %s; settings are keys with values, such as \"slot: shop\"", root.kind))
	}
	return root, usage(r.faults...)
}

func placeOf(file string, t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{file, 1, 1}
	}
	return place{file, t.Position.Line, t.Position.Column}
}

// A yamlReader turns the parser's nodes into ours.
type yamlReader struct {
	file   string
	faults []error
}

func (r *yamlReader) node(n ast.Node) *node {
	t := n.GetToken()
	out := &node{at: placeOf(r.file, t)}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = nodeNothing
	case *ast.StringNode:
		out.kind, out.text = nodeText, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = nodeText, n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode:
		out.kind, out.text = nodeNumber, t.Value
	case *ast.BoolNode:
		out.kind, out.text = nodeBool, t.Value
	case *ast.SequenceNode:
		out.kind = nodeList
		for _, item := range n.Values {
			out.items = append(out.items, r.node(item))
		}
	case *ast.MappingNode:
		out.kind = nodeMapping
		r.members(out, n.Values)
	case *ast.MappingValueNode:
		out.kind = nodeMapping
		r.members(out, []*ast.MappingValueNode{n})
	default:
		r.faults = append(r.faults, out.at.errorf("%s: settings have no anchors, aliases, tags or merges", n.Type().YAMLName()))
		out.kind = nodeNothing
	}
	return out
}

func (r *yamlReader) members(out *node, values []*ast.MappingValueNode) {
	seen := make(map[string]place)
	for i, v := range values {
		at := placeOf(r.file, v.Key.GetToken())
		if i == 0 {
			out.at = at
		}
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			r.faults = append(r.faults, at.errorf("a key must be a name"))
			continue
		}
		if first, twice := seen[key.Value]; twice {
			r.faults = append(r.faults, at.errorf("the key %q is there twice, first in line %d", key.Value, first.line))
			continue
		}
		seen[key.Value] = at
		out.members = append(out.members, pair{at: at, key: key.Value, value: r.node(v.Value)})
	}
}
