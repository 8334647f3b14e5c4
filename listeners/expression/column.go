package expression

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"

	"github.com/rowcall/rowcall/listeners"
)

// A row is a record of which the expression takes columns.
type row struct {
	record listeners.Record
	key    bool // only the columns of the key
}

// Names that the text cannot have.
const (
	columnFunction = "$column"
	environment    = "$env"
)

// A patcher turns after.price into a call, so that only the columns that are
// asked for are decoded, and gives functions the event. It notes the names.
type patcher struct{ names map[string]struct{} }

// Visit implements [ast.Visitor].
func (p patcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		p.names[n.Value] = struct{}{}
	case *ast.MemberNode:
		of, ok := n.Node.(*ast.IdentifierNode)
		if !ok || of.Value != "before" && of.Value != "after" && of.Value != "key" {
			return
		}
		call := &ast.CallNode{
			Callee:    &ast.IdentifierNode{Value: columnFunction},
			Arguments: []ast.Node{&ast.IdentifierNode{Value: environment}, &ast.StringNode{Value: of.Value}, n.Property},
		}
		call.SetLocation(n.Location())
		ast.Patch(node, call)
	case *ast.CallNode:
		of, ok := n.Callee.(*ast.IdentifierNode)
		if ok && (of.Value == "changed" || of.Value == "unchanged") && len(n.Arguments) == 1 {
			n.Arguments = append([]ast.Node{&ast.IdentifierNode{Value: environment}}, n.Arguments...)
		}
	}
}

func functions() []expr.Option {
	return []expr.Option{
		expr.Function(columnFunction, func(args ...any) (any, error) {
			v, which, name := args[0].(*env), args[1].(string), args[2].(string) //nolint:errcheck,forcetypeassert // the types below
			switch which {
			case "before":
				return v.column(v.Before, name)
			case "after":
				return v.column(v.After, name)
			default:
				return v.column(v.Key, name)
			}
		}, new(func(*env, string, string) any)),
		expr.Function("changed", func(args ...any) (any, error) {
			return args[0].(*env).changed(args[1].(string)) //nolint:errcheck,forcetypeassert // the types below
		}, new(func(*env, string) bool)),
		expr.Function("unchanged", func(args ...any) (any, error) {
			v, name := args[0].(*env), args[1].(string) //nolint:errcheck,forcetypeassert // the types below
			if err := v.known(v.After, name); err != nil {
				return nil, err
			}
			return v.After.record.Exists() && v.After.record.Get(name).State() == listeners.Unchanged, nil
		}, new(func(*env, string) bool)),
	}
}

// known returns an error if there is no such column.
func (v *env) known(r row, name string) error {
	schema := v.event.Schema
	if r.record.Exists() {
		schema = r.record.Schema()
	}
	i := schema.Index(name)
	if i < 0 {
		var names []string
		for _, c := range schema.Columns {
			names = append(names, c.Name)
		}
		return fmt.Errorf("%s has no column %q, but %s", schema.Collection(), name, strings.Join(names, ", "))
	}
	if r.key && !schema.Columns[i].Key {
		return fmt.Errorf("the column %q is not in the key of %s", name, schema.Collection())
	}
	return nil
}

// column decodes one. What is not there is nil.
func (v *env) column(r row, name string) (any, error) {
	if err := v.known(r, name); err != nil {
		return nil, err
	}
	if !r.record.Exists() {
		return nil, nil //nolint:nilnil // a value, not a pointer
	}
	value := r.record.Get(name)
	if value.State() != listeners.Present {
		return nil, nil //nolint:nilnil // the same
	}
	schema := r.record.Schema()
	if strings.HasPrefix(schema.Columns[schema.Index(name)].Type, "numeric") {
		return number(value.String())
	}
	var out any
	if err := value.Scan(&out); err != nil {
		return nil, fmt.Errorf("column %s: %w", name, err)
	}
	if n, ok := out.(json.Number); ok {
		return number(n.String())
	}
	return out, nil
}

func number(text string) (any, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, fmt.Errorf("%q is not a number", text)
	}
	return f, nil
}

// changed reports whether an event has changed a column.
func (v *env) changed(name string) (bool, error) {
	e := v.event
	if err := v.known(row{record: e.After}, name); err != nil {
		return false, err
	}
	if e.Op != listeners.Update {
		return true, nil
	}
	after := e.After.Get(name)
	switch {
	case after.State() == listeners.Unchanged:
		return false, nil
	case e.Before.Exists():
		before := e.Before.Get(name)
		return before.State() != after.State() || string(before.Bytes()) != string(after.Bytes()), nil
	case e.OldKey.Exists() && e.OldKey.Get(name).State() == listeners.Present:
		return string(e.OldKey.Get(name).Bytes()) != string(after.Bytes()), nil
	}
	// A source that sends no old row sends at least an old key that differs.
	return !e.Schema.Columns[e.Schema.Index(name)].Key, nil
}
