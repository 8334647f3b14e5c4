package listeners

import "context"

// CloseFor closes the feed as [Feed.Close] does, and says why to those who ask
// [Subscription.Reason]. The reason should wrap [ErrClosed]. Only the first of
// several counts.
func (f *Feed) CloseFor(reason error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close(reason)
	f.oldest = nil // nobody can subscribe any more
	f.unclogIfFree()
}

// Reason returns why the subscription ended, also where that is no error: what
// [Subscription.Err] returns if that is one; what the source has said when it
// closed its feed, such as that the region was closed; [ErrClosed] if the
// subscription itself was closed. It is nil while the subscription runs.
func (s *Subscription) Reason() error {
	if err := s.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// reasonOf returns the reason of an end with this error.
func (s *Subscription) reasonOf(err error) error {
	switch {
	case err != nil && !s.closed.Load():
		return err
	case s.feed.closed():
		return context.Cause(s.feed.open)
	}
	return ErrClosed
}
