package grid

import "context"

type tagKey struct{}

// WithTag returns a context for writes that listeners can tell from others:
// the tag is in [listeners.Tx].Tag of each batch written with it, and so in
// [listeners.Change].Tx. It says what the caller wants to say, such as "import"
// or who asked. A later tag replaces an earlier one.
//
// The tag goes with the batch to all listeners in this process, those of
// mirrors too. It is not sent to other processes. Entries that expire or are
// evicted leave in transactions of their own, which have no tag. Nor has what a
// listener writes in its turn, unless it says so.
func WithTag(ctx context.Context, tag string) context.Context {
	return context.WithValue(ctx, tagKey{}, tag)
}

func tagOf(ctx context.Context) string {
	tag, _ := ctx.Value(tagKey{}).(string)
	return tag
}
