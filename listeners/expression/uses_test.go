package expression_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/expression"
)

func TestUses(t *testing.T) {
	for text, want := range map[string]bool{
		`tag == "import"`: true,
		`op == "create" and (txid > 1 or tag != "")`: true,
		`any(["a"], # == tag)`:                       true,
		`changed("tag")`:                             false,
		`after.tag == "tag"`:                         false,
		`after[tag] == 1`:                            true,
	} {
		f, err := expression.Compile(text)
		if err != nil {
			t.Errorf("Compile(%s) = %v", text, err)
			continue
		}
		if got := f.Uses("tag"); got != want {
			t.Errorf("Compile(%s).Uses(tag) = %t, want %t", text, got, want)
		}
	}
}

func TestKeepTxSeesTheTransaction(t *testing.T) {
	f, err := expression.Compile(`txid == 42`)
	if err != nil {
		t.Fatal(err)
	}
	if !f.KeepTx(created, listeners.Tx{ID: 42}) || f.KeepTx(created, listeners.Tx{ID: 41}) || f.Keep(created) {
		t.Errorf("%s: KeepTx(42), KeepTx(41), Keep = %t, %t, %t, want true, false, false", f,
			f.KeepTx(created, listeners.Tx{ID: 42}), f.KeepTx(created, listeners.Tx{ID: 41}), f.Keep(created))
	}
}
