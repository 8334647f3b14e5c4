package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs are the texts that a user reads, by their paths.
func docs(t *testing.T) map[string]string {
	t.Helper()
	base := root(t)
	files, err := filepath.Glob(filepath.Join(base, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, file := range append(files, filepath.Join(base, "README.md"), filepath.Join(base, "CHANGELOG.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	return texts
}

var (
	block   = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^\w\- ]`)
)

// slugs are the anchors of a text, as the hosts of repositories make them.
func slugs(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		found[strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	texts, seen := docs(t), 0
	for file, text := range texts {
		for _, m := range link.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			path, anchor, _ := strings.Cut(m[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link %s: %v", filepath.Base(file), m[1], err)
			}
			if anchor != "" && !slugs(texts[target])[anchor] {
				t.Errorf("%s: link %s: there is no such heading", filepath.Base(file), m[1])
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d links found in the docs; this test would hold for anything", seen)
	}
}

// exported are the names that a package declares for others, those of methods and fields left out.
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	entries, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, entry), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names[d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						names[s.Name.Name] = true
					case *ast.ValueSpec:
						for _, name := range s.Names {
							names[name.Name] = true
						}
					}
				}
			}
		}
	}
	return names
}

// What the docs say in Go is there under that name.
func TestDocsNameWhatThereIs(t *testing.T) {
	base, seen := root(t), 0
	packages := map[string]map[string]bool{}
	for _, dir := range []string{
		"listeners", "grid", "grid/pgwrite", "cdc", "sinks", "sinks/jetstream", "sinks/kafka", "sinks/rabbitmq", "sinks/pginbox",
	} {
		packages[filepath.Base(dir)] = exported(t, filepath.Join(base, dir))
	}
	used := regexp.MustCompile(`\b([a-z]+)\.([A-Z]\w*)`)
	check := func(file, text string) {
		for _, m := range used.FindAllStringSubmatch(text, -1) {
			names, ours := packages[m[1]]
			if !ours {
				continue
			}
			seen++
			if !names[m[2]] {
				t.Errorf("%s speaks of %s, which does not exist", filepath.Base(file), m[0])
			}
		}
	}
	code := regexp.MustCompile("`([^`\n]+)`")
	for file, text := range docs(t) {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			if m[1] == "go" {
				check(file, m[2])
			}
		}
		for _, m := range code.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
			check(file, m[1])
		}
	}
	if seen < 50 {
		t.Errorf("%d names found in the docs; this test would hold for anything", seen)
	}
}
