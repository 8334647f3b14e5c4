package trie_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/grid/internal/trie"
)

type entry struct {
	key string
	val int
}

func newTree() trie.Tree[entry] { return trie.New(func(e *entry) []byte { return []byte(e.key) }) }

// content lists what yields.
func content(walk func(func(*entry) bool)) []entry {
	var all []entry
	walk(func(e *entry) bool {
		all = append(all, *e)
		return true
	})
	return all
}

// A model is a tree as a map.
type model map[string]int

func (m model) from(key string) []entry {
	var all []entry
	for k, v := range m {
		if k >= key {
			all = append(all, entry{k, v})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return all
}

// differ is cmp.Diff, which takes its time, where there is something to tell.
func differ(want, got []entry) string {
	if slices.Equal(want, got) {
		return ""
	}
	return cmp.Diff(want, got, cmp.AllowUnexported(entry{}))
}

// TestTreeIsAMap plays random transactions on trees and maps, and looks at all
// trees again at the end: none may have changed.
func TestTreeIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Keys that share beginnings, begin each other, and fill branches.
		keys := rapid.OneOf(
			rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 6, -1),
			rapid.StringMatching(`seat-[0-9]{2}`),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 3), func(b []byte) string { return string(b) }),
			rapid.StringMatching(`a common beginning (of|at) [a-c]{1,2}[01]?`),
		)
		type version struct {
			tree trie.Tree[entry]
			want model
		}
		versions := []version{{newTree(), model{}}}
		val := 0
		for range rapid.IntRange(1, 8).Draw(t, "transactions") {
			base := versions[rapid.IntRange(max(0, len(versions)-2), len(versions)-1).Draw(t, "base")]
			txn, want := base.tree.Txn(), maps.Clone(base.want)
			for range rapid.IntRange(0, 30).Draw(t, "changes") {
				k := keys.Draw(t, "key")
				old, held := want[k]
				var before *entry
				switch rapid.IntRange(0, 5).Draw(t, "op") {
				case 0, 1, 2:
					val++
					before = txn.Set(&entry{k, val})
					want[k] = val
				case 3, 4:
					before = txn.Delete([]byte(k))
					delete(want, k)
				default:
					before = txn.Get([]byte(k))
					versions = append(versions, version{txn.Tree(), maps.Clone(want)})
				}
				if (before != nil) != held || held && *before != (entry{k, old}) {
					t.Fatalf("the entry before, of key %q, is %v; want %d, there %t", k, before, old, held)
				}
			}
			versions = append(versions, version{txn.Tree(), want})
		}
		for i, v := range versions {
			if diff := differ(v.want.from(""), content(v.tree.All)); diff != "" {
				t.Fatalf("version %d: All() (-want +got):\n%s", i, diff)
			}
			backward := content(v.tree.Backward)
			slices.Reverse(backward)
			if diff := differ(v.want.from(""), backward); diff != "" {
				t.Fatalf("version %d: Backward() (-want +got):\n%s", i, diff)
			}
			for range 5 {
				k := keys.Draw(t, "from")
				got := content(func(yield func(*entry) bool) { v.tree.From([]byte(k), yield) })
				if diff := differ(v.want.from(k), got); diff != "" {
					t.Fatalf("version %d: From(%q) (-want +got):\n%s", i, k, diff)
				}
				below := content(func(yield func(*entry) bool) { v.tree.Below([]byte(k), yield) })
				slices.Reverse(below)
				if diff := differ(v.want.from(""), append(below, got...)); diff != "" {
					t.Fatalf("version %d: Below(%q) and From (-want +got):\n%s", i, k, diff)
				}
				val, held := v.want[k]
				if e := v.tree.Get([]byte(k)); (e != nil) != held || held && e.val != val {
					t.Fatalf("version %d: Get(%q) = %v; want %d, there %t", i, k, e, val, held)
				}
			}
		}
	})
}

func TestWalksStop(t *testing.T) {
	tree := newTree()
	txn := tree.Txn()
	for i := range 300 {
		txn.Set(&entry{fmt.Sprint(i), i})
	}
	tree = txn.Tree()
	for want := 1; want <= 300; want++ {
		got := 0
		stop := func(*entry) bool {
			got++
			return got < want
		}
		if tree.All(stop); got != want {
			t.Fatalf("All() yields %d entries to one who stops after %d", got, want)
		}
		got = 0
		if tree.From([]byte("0"), stop); got != want {
			t.Fatalf("From() yields %d entries to one who stops after %d", got, want)
		}
	}
}

func TestBytesSortAsBytes(t *testing.T) {
	tree := newTree()
	txn := tree.Txn()
	var want []string
	for a := range 256 {
		for _, rest := range []string{"", "\x00", "\x00\x01", "\x7f", "\xff"} {
			k := string([]byte{byte(a)}) + rest
			want = append(want, k)
			txn.Set(&entry{key: k})
		}
	}
	tree = txn.Tree()
	var got []string
	for _, e := range content(tree.All) {
		got = append(got, e.key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("All() (-want +got):\n%s", diff)
	}
}

func TestATransactionThatIsGivenUpLeavesNothing(t *testing.T) {
	tree := newTree()
	txn := tree.Txn()
	for i := range 100 {
		txn.Set(&entry{fmt.Sprintf("%03d", i), i})
	}
	tree = txn.Tree()
	want := content(tree.All)
	for range 2 { // the second has the first one's number
		x := tree.Txn()
		for i := range 100 {
			x.Set(&entry{fmt.Sprintf("%03d", i), -1})
			x.Delete(fmt.Appendf(nil, "%03d", (i+50)%100))
		}
	}
	if diff := cmp.Diff(want, content(tree.All), cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("the tree after two transactions that nobody took (-want +got):\n%s", diff)
	}
}

func TestLookUpsDoNotAllocate(t *testing.T) {
	tree := trie.New(func(e *[]byte) []byte { return *e })
	txn := tree.Txn()
	for i := range 1000 {
		key := fmt.Append(nil, i)
		txn.Set(&key)
	}
	tree = txn.Tree()
	key := []byte("777")
	if n := testing.AllocsPerRun(100, func() {
		if tree.Get(key) == nil {
			t.Error("Get() found nothing")
		}
	}); n != 0 {
		t.Errorf("Get() makes %v allocations, want none", n)
	}
}

func FuzzTree(f *testing.F) {
	f.Add("a", "ab", "", "b\x00")
	f.Add("\x10", "\x11", "\x1f", "\xf1")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		tree, want := newTree(), model{}
		for i, k := range []string{a, b, c, d} {
			txn := tree.Txn()
			txn.Set(&entry{k, i})
			want[k] = i
			tree = txn.Tree()
		}
		for _, k := range []string{a, c} {
			got := content(func(yield func(*entry) bool) { tree.From([]byte(k), yield) })
			if diff := cmp.Diff(want.from(k), got, cmp.AllowUnexported(entry{})); diff != "" {
				t.Fatalf("From(%q) (-want +got):\n%s", k, diff)
			}
			txn := tree.Txn()
			txn.Delete([]byte(k))
			delete(want, k)
			tree = txn.Tree()
		}
	})
}
