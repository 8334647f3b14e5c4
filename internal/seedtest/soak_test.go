package seedtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestMakeSoakPlaysEveryModel(t *testing.T) {
	t.Parallel()
	const root = "../.."
	makefile, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`(?m)^models := (.*)$`).FindSubmatch(makefile)
	packages := regexp.MustCompile(`(?m)^modelled := (.*)$`).FindSubmatch(makefile)
	if asked == nil || packages == nil {
		t.Fatal("the Makefile does not say which models soak plays")
	}
	models := regexp.MustCompile(string(asked[1]))
	played := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\) \{\n(?:.*[^}\n].*\n)*?.*\bseedtest\.Play`)
	found := 0
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir := "./" + filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), root+"/"))
		if dir == "./internal/seedtest" {
			return nil
		}
		for _, m := range played.FindAllSubmatch(text, -1) {
			found++
			if !models.Match(m[1]) || !strings.Contains(" "+string(packages[1])+" ", " "+dir+" ") {
				t.Errorf("make soak does not play %s of %s", m[1], dir)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(asked[1]), "|") + 1; found != n {
		t.Errorf("%d tests play models, and make soak names %d", found, n)
	}
}
