package listeners

// A claim is what one event concerns: a key of a collection, or all of it.
type claim struct {
	collection string
	key        string // collection, NUL, key's text; empty for all of it
}

// claimsOf returns what a batch concerns. A truncate, a message and a change of
// a row without a whole key concern their collection; so messages of one subject
// stay in order, too.
func claimsOf(b *Batch) []claim {
	out := make([]claim, 0, len(b.Events))
	var key []byte
	for i := range b.Events {
		e := &b.Events[i]
		name := e.Schema.Collection()
		add := func(k Key) {
			var whole bool
			key, whole = appendIdentity(key[:0], name, k)
			if !whole {
				key = key[:0]
			}
			out = append(out, claim{name, string(key)})
		}
		switch e.Op {
		case Truncate, Message:
			out = append(out, claim{collection: name})
			continue
		default:
		}
		add(e.Key())
		if old, changed := e.ChangedKey(); changed {
			add(old)
		}
	}
	return out
}

// appendIdentity appends what tells a row from all others of a source. It
// reports false if the key names no row for sure.
func appendIdentity(dst []byte, collection string, k Key) ([]byte, bool) {
	dst = append(append(dst, collection...), 0)
	for i := range k.Len() {
		if _, v := k.At(i); v.State() != Present {
			return dst, false
		}
	}
	return k.Append(dst), k.Len() > 0
}

// A claimSet counts claims.
type claimSet struct {
	keys  map[string]int
	whole map[string]int // claims of all of a collection
	some  map[string]int // claims of any kind
}

func newClaimSet() claimSet {
	return claimSet{keys: make(map[string]int), whole: make(map[string]int), some: make(map[string]int)}
}

// touches reports whether one of the claims concerns what one of the set does.
func (s claimSet) touches(claims []claim) bool {
	for _, c := range claims {
		switch {
		case c.key == "" && s.some[c.collection] > 0,
			c.key != "" && (s.keys[c.key] > 0 || s.whole[c.collection] > 0):
			return true
		}
	}
	return false
}

func (s claimSet) add(claims []claim)    { s.count(claims, 1) }
func (s claimSet) remove(claims []claim) { s.count(claims, -1) }

func (s claimSet) count(claims []claim, by int) {
	for _, c := range claims {
		count(s.some, c.collection, by)
		if c.key == "" {
			count(s.whole, c.collection, by)
		} else {
			count(s.keys, c.key, by)
		}
	}
}

func count(m map[string]int, k string, by int) {
	if m[k] += by; m[k] == 0 {
		delete(m, k)
	}
}
