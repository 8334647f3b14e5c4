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

// Told returns the position at which the source of a mirror has last told the
// whole state, be it as the region held it already: zero before the first time,
// and in a region that is no mirror. Who hears the region has [listeners.Subscription.Stored]
// reach it afterwards.
func (r *Region[K, V]) Told() listeners.Position {
	if at := r.told.Load(); at != nil {
		return *at
	}
	return listeners.Position{}
}

// Mirrors reports whether the region is a mirror, which takes no writes.
func (r *Region[K, V]) Mirrors() bool { return r.source != nil }
