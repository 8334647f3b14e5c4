package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// hidden are the modules whose types are nobody's business but ours.
var hidden = []string{"github.com/jackc/pglogrepl", "github.com/expr-lang/expr"}

// foreign lists where the exported declarations of a file name a type, function
// or value of a hidden module.
func foreign(file string, src []byte) ([]string, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, spec := range tree.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		for _, module := range hidden {
			if !inTree(path, module) {
				continue
			}
			// The package's name is its path's last word.
			name := path[strings.LastIndexByte(path, '/')+1:]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = true
		}
	}
	if len(names) == 0 {
		return nil, nil
	}

	var found []string
	look := func(decl string, node ast.Node) {
		ast.Inspect(node, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if id, ok := sel.X.(*ast.Ident); ok && names[id.Name] {
					found = append(found, fset.Position(sel.Pos()).String()+": "+decl+" shows "+id.Name+"."+sel.Sel.Name)
				}
			}
			return true
		})
	}
	for _, decl := range tree.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) {
				look(d.Name.Name, d.Type)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					// An unexported alias gives the type a name that a signature can show.
					if s.Name.IsExported() || s.Assign.IsValid() {
						look(s.Name.Name, visible(s.Type))
					}
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if name.IsExported() {
							look(name.Name, s)
						}
					}
				}
			}
		}
	}
	return found, nil
}

// exportedReceiver reports whether a method is one of an exported type.
func exportedReceiver(recv *ast.FieldList) bool {
	exported := false
	ast.Inspect(recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			exported = id.IsExported()
			return false
		}
		_, typeArgs := n.(*ast.IndexListExpr)
		return !exported || !typeArgs
	})
	return exported
}

// visible drops a struct's unexported fields. An embedded field shows whatever
// its name, since its methods are promoted.
func visible(typ ast.Expr) ast.Expr {
	st, ok := typ.(*ast.StructType)
	if !ok {
		return typ
	}
	fields := &ast.FieldList{}
	for _, f := range st.Fields.List {
		shows := len(f.Names) == 0
		for _, name := range f.Names {
			shows = shows || name.IsExported()
		}
		if shows {
			fields.List = append(fields.List, f)
		}
	}
	return &ast.StructType{Fields: fields}
}

func TestForeign(t *testing.T) {
	const imports = `package p
import ( "github.com/jackc/pglogrepl"; "github.com/expr-lang/expr"; repl "github.com/jackc/pglogrepl" )
`
	for name, tc := range map[string]struct {
		src  string
		want int
	}{
		"parameter":                  {"func F(lsn pglogrepl.LSN) {}", 1},
		"result, renamed import":     {"func F() (repl.LSN, error) { return 0, nil }", 1},
		"body":                       {"func F() { _ = pglogrepl.LSN(0) }", 0},
		"unexported function":        {"func f(pglogrepl.LSN) {}", 0},
		"method of exported type":    {"func (r *R[T]) M() expr.Option { panic(0) }", 1},
		"method of unexported type":  {"func (r *r) M() expr.Option { panic(0) }", 0},
		"exported field":             {"type T struct { LSN pglogrepl.LSN }", 1},
		"unexported field":           {"type T struct { db *expr.Option }", 0},
		"embedded field":             {"type T struct { *expr.Option }", 1},
		"interface method":           {"type T interface { M(*expr.Option) }", 1},
		"unexported type":            {"type t struct { LSN pglogrepl.LSN }", 0},
		"unexported alias":           {"type lsn = pglogrepl.LSN", 1},
		"exported variable":          {"var V = pglogrepl.LSN(0)", 1},
		"a comment may speak of it":  {"// F is like pglogrepl.Parse.\nfunc F() {}", 0},
		"other package, other types": {"func F(LSN) {}", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := foreign("p.go", []byte(imports+tc.src))
			if err != nil || len(got) != tc.want {
				t.Errorf("foreign(%q) = %q, %v; want %d findings", tc.src, got, err, tc.want)
			}
		})
	}
}
