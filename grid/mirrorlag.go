package grid

import "github.com/rowcall/rowcall/listeners"

// Lag returns how far a mirror is behind its source: what that has sent and
// the mirror does not show. An open region has none. What happens before its
// source sends it, such as in the database, is not counted.
func (r *Region[K, V]) Lag() listeners.Lag {
	if r.source == nil {
		return listeners.Lag{}
	}
	return r.source.Lag()
}

// Mirrors reports whether the region is a mirror, which takes no writes.
func (r *Region[K, V]) Mirrors() bool { return r.source != nil }
